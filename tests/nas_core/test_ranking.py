"""Rank correlations, scores with supernet weights, and how well they predict trained networks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from math import inf, nan

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.batch import Batch, SearchData
from nas_core.progress import Evaluation
from nas_core.ranking import (
    Agreement,
    RankedNetwork,
    Ranking,
    kendall,
    measure_ranking,
    ranking_paths,
    rerank,
    score,
    scoring_batches,
    spearman,
)
from nas_core.search_settings import SearchSettings
from nas_core.settings import RetrainSettings
from nas_core.supernet import Supernet
from nas_core.train import evaluate, refresh_statistics, start_training, train_epochs
from nas_core.workers import SingleProcess
from tests.support.thread_workers import Member, on_all
from tests.support.tiny import K3, K5, Images, all_architectures, two_sites

SPACE = two_sites((K3, K5, "skip"))
DATA = SearchData(weight=Images(24, 8, seed=1), architecture=Images(18, 6, seed=2))
TRAINING = Images(24, 4, seed=3)
"""Loader of the weight split, with the batch size of the retraining."""
SETTINGS = SearchSettings(epochs=2, batch_size=6, bn_images=12, ranking_networks=3)
RETRAIN = RetrainSettings(epochs=1, batch_size=8, lr=0.1)
PATHS = [(0, 0), (1, 2), (2, 2)]

# Few distinct values, so that there are many ties.
FEW = st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=2, max_size=12)
ANY = st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1, 1)), min_size=2, max_size=12)
Correlation = Callable[[Sequence[float], Sequence[float]], float]


@pytest.mark.parametrize(("ours", "theirs"), [(spearman, "spearmanr"), (kendall, "kendalltau")])
@given(pairs=st.one_of(FEW, ANY))
def test_rank_correlations_are_those_of_scipy(
    ours: Correlation, theirs: str, pairs: list[tuple[float, float]]
) -> None:
    from scipy import stats

    a, b = ([float(value) for value in values] for values in zip(*pairs, strict=True))
    assume(len(set(a)) > 1)
    assume(len(set(b)) > 1)
    assert ours(a, b) == pytest.approx(getattr(stats, theirs)(a, b)[0], abs=1e-12)


@pytest.mark.parametrize(("correlation", "expected"), [(spearman, 0.5), (kendall, 1 / 3)])
def test_one_swap_of_three_by_hand(correlation: Correlation, expected: float) -> None:
    assert correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(expected)


@pytest.mark.parametrize("correlation", [spearman, kendall])
def test_a_constant_orders_nothing(correlation: Correlation) -> None:
    assert correlation([0.5, 0.5, 0.5], [1, 2, 3]) == 0.0


@pytest.mark.parametrize("correlation", [spearman, kendall])
def test_infinite_values_are_equal_and_the_largest(correlation: Correlation) -> None:
    assert correlation([1, inf, inf], [1, 2, 2]) == pytest.approx(1.0)


@pytest.mark.parametrize("correlation", [spearman, kendall])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 2, 3], [1, 2], r"of 3 and 2 values; expected as many"),
        ([1], [1], r"of 1 and 1 values; expected as many, two or more"),
        ([1, nan], [1, 2], r"not numbers \(nan\)"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    correlation: Correlation, a: list[float], b: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        correlation(a, b)


def a_supernet(seed: int = 0) -> Supernet:
    """A supernet as after some training: no two BatchNorm layers are equal."""
    rng = torch.Generator().manual_seed(seed)
    net = Supernet(SPACE, rng)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight.data, layer.running_mean, layer.running_var):
                assert values is not None
                values.uniform_(0.5, 1.5, generator=rng)
    return net


class OnePath(nn.Module):
    """The supernet itself, restricted to one path."""

    def __init__(self, net: Supernet, path: Sequence[int]) -> None:
        super().__init__()
        self.net, self.path = net, path

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images, self.path)


def held_out() -> list[Batch]:
    return list(islice(DATA.architecture.batches(0), 3))


def refreshing(count: int = 2) -> list[Batch]:
    return list(islice(DATA.weight.batches(0), count))


def assert_same(first: Evaluation, second: Evaluation) -> None:
    assert (first.top1, first.top5, first.count) == (second.top1, second.top5, second.count)
    assert first.loss == pytest.approx(second.loss, rel=1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_a_score_is_that_of_the_supernet_on_the_path(path: tuple[int, ...]) -> None:
    net = a_supernet()
    expected = evaluate(OnePath(net, path).eval(), held_out(), SingleProcess())
    assert_same(score(net, path, [], held_out(), SingleProcess()), expected)


@pytest.mark.parametrize("path", PATHS)
def test_statistics_are_taken_anew_along_the_path(path: tuple[int, ...]) -> None:
    net = a_supernet()
    alone = OnePath(copy.deepcopy(net), path).eval()
    refresh_statistics(alone, refreshing())
    expected = evaluate(alone, held_out(), SingleProcess())
    assert_same(score(net, path, refreshing(), held_out(), SingleProcess()), expected)


def test_refreshed_scores_do_not_depend_on_the_statistics_of_the_supernet() -> None:
    net = a_supernet()
    before = score(net, (0, 1), refreshing(), held_out(), SingleProcess())
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    assert score(net, (0, 1), refreshing(), held_out(), SingleProcess()) == before


@pytest.mark.parametrize("refresh", [0, 2])
def test_scoring_changes_neither_the_supernet_nor_the_random_state(refresh: int) -> None:
    net = a_supernet().train()
    before, random_state = copy.deepcopy(net), torch.get_rng_state()
    score(net, (0, 1), refreshing(refresh), held_out(), SingleProcess())
    assert all(torch.equal(value, before.state_dict()[n]) for n, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert net.training
    assert torch.equal(torch.get_rng_state(), random_state)


def test_two_workers_score_what_one_scores_on_all_images() -> None:
    def work(member: Member) -> Evaluation:
        part = Images(18, 6, seed=2, rank=member.rank, size=2)
        return score(a_supernet(), (0, 1), [], islice(part.batches(0), 3), member)

    expected = score(a_supernet(), (0, 1), [], held_out(), SingleProcess())
    for result in on_all(2, work):
        assert_same(result, expected)


def test_two_workers_with_different_training_images_agree_on_a_score() -> None:
    def work(member: Member) -> Evaluation:
        own = Images(24, 8, seed=member.rank)
        return score(a_supernet(), (0, 1), islice(own.batches(0), 2), held_out(), member)

    first, second = on_all(2, work)
    assert first == second


@pytest.mark.parametrize(("images", "batches"), [(1, 1), (6, 1), (7, 2), (100, 3)])
def test_networks_are_scored_on_so_many_images_or_on_one_pass(images: int, batches: int) -> None:
    refresh, scored = scoring_batches(DATA, replace(SETTINGS, score_images=images))
    assert (len(list(refresh)), len(list(scored))) == (2, batches)


ARCHITECTURES = all_architectures(SPACE)[:3]
SCORES = [Evaluation(0.9, 0.5, 1.0, 18), Evaluation(0.7, 0.4, 1.0, 18), Evaluation(0.8, 0.5, 1, 18)]


def test_reranking_by_accuracy_leaves_equals_in_their_order() -> None:
    first, second, third = ARCHITECTURES
    assert rerank(ARCHITECTURES, SCORES, "accuracy") == [first, third, second]


def test_reranking_by_cross_entropy_puts_the_smallest_first() -> None:
    first, second, third = ARCHITECTURES
    assert rerank(ARCHITECTURES, SCORES, "cross_entropy") == [second, third, first]


def test_a_network_without_a_loss_comes_last() -> None:
    scores = [replace(SCORES[0], loss=nan), *SCORES[1:]]
    assert rerank(ARCHITECTURES, scores, "cross_entropy")[-1] == ARCHITECTURES[0]


NETWORKS = [
    RankedNetwork((0, 0), supernet_accuracy=a, supernet_loss=b, alone_accuracy=c, alone_loss=1.0)
    for a, b, c in [(0.3, 1.0, 0.5), (0.2, 0.9, 0.6), (0.1, 0.8, 0.7)]
]


def test_a_ranking_knows_both_orders() -> None:
    ranking = Ranking.of(NETWORKS)  # accuracies fall where they should rise, losses fall too
    assert ranking.by("accuracy") == Agreement(pytest.approx(-1), pytest.approx(-1))
    assert ranking.by("cross_entropy") == Agreement(pytest.approx(1), pytest.approx(1))


def test_a_diverged_network_is_ranked_last_and_is_no_error() -> None:
    diverged = replace(NETWORKS[0], supernet_loss=nan)
    assert Ranking.of([diverged, *NETWORKS[1:]]).cross_entropy.spearman == pytest.approx(1)


def test_the_networks_of_a_ranking_are_different_and_a_longer_one_goes_on() -> None:
    paths = ranking_paths(SPACE, 9, seed=0)
    assert sorted(paths) == sorted(tuple(arch.path()) for arch in all_architectures(SPACE))
    assert ranking_paths(SPACE, 4, seed=0) == paths[:4]
    assert ranking_paths(SPACE, 9, seed=1) != paths


def test_more_networks_than_the_space_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ranking_networks is 10, but 'tiny' has 9 networks"):
        ranking_paths(SPACE, 10, seed=0)


def measure(
    net: Supernet, done: Sequence[RankedNetwork] = (), seed: int = 0
) -> list[RankedNetwork]:
    words = (DATA, TRAINING, SETTINGS, RETRAIN, seed)
    return list(measure_ranking(net, *words, SingleProcess(), done))


def test_every_network_is_scored_and_trained_alone() -> None:
    net = a_supernet()
    result = measure(net)
    assert [network.path for network in result] == ranking_paths(SPACE, 3, seed=0)
    for network in result:
        foretold = score(net, network.path, refreshing(), held_out(), SingleProcess())
        state = start_training(
            Architecture.from_path(SPACE, list(network.path)), RETRAIN, 0, torch.device("cpu")
        )
        list(train_epochs(state, TRAINING, RETRAIN, 0, SingleProcess()))
        refresh_statistics(state.network, islice(TRAINING.batches(0), 20))
        alone = evaluate(state.network.eval(), held_out(), SingleProcess())
        assert (network.supernet_accuracy, network.supernet_loss) == (foretold.top1, foretold.loss)
        assert (network.alone_accuracy, network.alone_loss) == (alone.top1, alone.loss)


def test_measuring_the_ranking_leaves_the_supernet_alone() -> None:
    net = a_supernet()
    before = copy.deepcopy(net.state_dict())
    measure(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_resumed_ranking_equals_an_uninterrupted_one() -> None:
    whole = measure(a_supernet())
    assert whole[:2] + measure(a_supernet(), done=whole[:2]) == whole


def test_networks_of_another_seed_are_not_gone_on_with() -> None:
    done = measure(a_supernet(), seed=5)
    with pytest.raises(
        ValueError, match="the 3 networks that were ranked before are not the first"
    ):
        measure(a_supernet(), done=done)


def test_two_workers_yield_the_same_networks() -> None:
    def work(member: Member) -> list[RankedNetwork]:
        data = SearchData(
            weight=Images(24, 8, seed=1, rank=member.rank, size=2),
            architecture=Images(18, 6, seed=2, rank=member.rank, size=2),
        )
        training = Images(24, 4, seed=3, rank=member.rank, size=2)
        words = (data, training, SETTINGS, RETRAIN, 0)
        return list(measure_ranking(a_supernet(), *words, member))

    first, second = on_all(2, work)
    assert first == second
