"""Training of a network: recipe, statistics, averaging, resuming."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.baselines.registry import Baseline
from nas_core.batch import Batch
from nas_core.progress import EpochReport, Tally
from nas_core.randomness import counted_seed
from nas_core.settings import RetrainSettings
from nas_core.train import (
    TrainState,
    averaged_copy,
    cosine_lr,
    evaluate,
    mean_entropy,
    refresh_statistics,
    start_training,
    train_epochs,
    train_to_the_end,
)
from nas_core.workers import SingleProcess
from tests.support.thread_workers import Member, on_all
from tests.support.tiny import K3, K5, Images, two_sites

SETTINGS = RetrainSettings(epochs=3, batch_size=8, lr=0.1, dropout=0.2)
LOADER = Images(24, 8)


def a_state(settings: RetrainSettings = SETTINGS, seed: int = 0) -> TrainState:
    architecture = Architecture(two_sites(), (K3, K5))
    return start_training(architecture, settings, seed, torch.device("cpu"))


def train(state: TrainState, settings: RetrainSettings = SETTINGS) -> list[EpochReport]:
    return list(train_epochs(state, LOADER, settings, 0, SingleProcess()))


def assert_same(first: TrainState, second: TrainState) -> None:
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def batches_of(images: Tensor, labels: Tensor) -> Sequence[Batch]:
    return [Batch(images[:5], labels[:5], 5), Batch(images[5:], labels[5:], 3)]


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    rates = [cosine_lr(0.2, step, 4) for step in range(5)]
    assert rates == pytest.approx([0.2, 0.1 + 0.1 * math.sqrt(0.5), 0.1, 0.1 - 0.1 * 0.5**0.5, 0.0])


def test_training_learns_what_can_be_learnt() -> None:
    settings = RetrainSettings(epochs=12, batch_size=8, lr=0.1, label_smoothing=0.0)
    reports = train(a_state(settings), settings)
    assert reports[-1].top1 > 0.9
    assert reports[-1].loss < 0.5 * reports[0].loss


def test_reports_are_numbered_and_have_no_latency() -> None:
    reports = train(a_state())
    assert [(r.phase, r.epoch, r.latency_ms) for r in reports] == [
        ("retrain", epoch, None) for epoch in range(3)
    ]


def test_batchnorm_and_biases_are_not_decayed() -> None:
    state = a_state(RetrainSettings(weight_decay=0.5))
    decay = {
        id(p): group["weight_decay"]
        for group in state.optimizer.param_groups
        for p in group["params"]
    }
    for layer in state.network.modules():
        for name, p in layer.named_parameters(recurse=False):
            is_weight = isinstance(layer, nn.Conv2d | nn.Linear) and name == "weight"
            assert decay.pop(id(p)) == (0.5 if is_weight else 0.0)
    assert not decay


@pytest.mark.parametrize("finished", [1, 2])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(finished: int) -> None:
    whole, stopped = a_state(), a_state()
    reports = train(whole)
    epochs = train_epochs(stopped, LOADER, SETTINGS, 0, SingleProcess())
    before = [next(epochs) for _ in range(finished)]
    resumed = a_state(seed=99)  # like another process, from the saved state
    resumed.network.load_state_dict(copy.deepcopy(stopped.network.state_dict()))
    resumed.optimizer.load_state_dict(copy.deepcopy(stopped.optimizer.state_dict()))
    resumed.epoch = stopped.epoch
    torch.manual_seed(12345)
    assert before + train(resumed) == reports
    assert_same(resumed, whole)


def test_dropout_is_that_of_the_seed() -> None:
    first, second = a_state(), a_state()
    torch.manual_seed(1)
    train(first)
    torch.manual_seed(2)
    train(second)
    assert_same(first, second)


def test_every_step_and_every_worker_drops_something_else() -> None:
    masks = set()
    for rank in (0, 1):
        state, loader = a_state(), Images(24, 8, rank=rank, size=2)
        (dropout,) = (m for m in state.network.modules() if isinstance(m, nn.Dropout))

        def note(_layer: nn.Module, _args: object, output: Tensor) -> None:
            masks.add(tuple(output.flatten().tolist()))

        dropout.register_forward_hook(note)
        dropout.register_forward_pre_hook(lambda _layer, args: torch.ones_like(args[0]))
        list(train_epochs(state, loader, SETTINGS, 0, SingleProcess()))
    assert len(masks) == 2 * SETTINGS.epochs * LOADER.steps


def test_the_reported_loss_is_smoothed_cross_entropy() -> None:
    settings = RetrainSettings(epochs=1, batch_size=24, label_smoothing=0.3)
    state, loader = a_state(settings), Images(24, 24)
    logits = copy.deepcopy(state.network).train()(loader.images)
    spread = 0.7 * F.one_hot(loader.labels, 3) + 0.3 / 3
    expected = -(spread * logits.detach().log_softmax(1)).sum(1).mean()
    (report,) = train_epochs(state, loader, settings, 0, SingleProcess())
    assert report.loss == pytest.approx(float(expected), rel=1e-5)


def test_a_tally_counts_hits_by_hand() -> None:
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1], [6.0, 5, 4, 3, 2, 1], [1.0, 2, 3, 4, 5, 6]])
    labels = torch.tensor([0, 5, 1])  # first; sixth; fifth
    tally = Tally()
    tally.add(logits[:2], labels[:2], torch.tensor(1.0))
    tally.add(logits[2:], labels[2:], torch.tensor(4.0))
    seen = tally.evaluation(SingleProcess())
    assert (seen.loss, seen.top1, seen.top5) == pytest.approx((2.0, 1 / 3, 2 / 3))
    assert seen.count == 3


def test_evaluation_is_that_of_all_images_at_once() -> None:
    network = a_state().network.eval()
    images, labels = LOADER.images[:8], LOADER.labels[:8]
    seen = evaluate(network, batches_of(images, labels), SingleProcess())
    with torch.no_grad():
        logits = network(images)
    assert seen.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-6)
    assert seen.top1 == float((logits.argmax(1) == labels).double().mean())
    assert (seen.top5, seen.count) == (1.0, 8)


def test_an_averaged_copy_has_the_mean_statistics_and_leaves_the_network_alone() -> None:
    def work(member: Member) -> tuple[list[float], list[float]]:
        network = nn.Sequential(nn.BatchNorm2d(2))
        norm = network[0]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        norm.running_mean.fill_(float(member.rank))
        averaged = averaged_copy(network, member)
        assert not averaged.training
        return averaged.get_buffer("0.running_mean").tolist(), norm.running_mean.tolist()

    assert on_all(2, work) == [([0.5, 0.5], [0.0, 0.0]), ([0.5, 0.5], [1.0, 1.0])]


def test_two_workers_end_with_the_same_weights() -> None:
    def work(member: Member) -> list[float]:
        state = a_state(RetrainSettings(epochs=2, batch_size=8))
        loader = Images(24, 8, rank=member.rank, size=2)
        list(train_epochs(state, loader, RetrainSettings(epochs=2, batch_size=8), 0, member))
        return torch.cat([p.detach().flatten() for p in state.network.parameters()]).tolist()

    first, second = on_all(2, work)
    assert first == second


def test_a_network_that_diverges_among_others_ends_with_finite_weights() -> None:
    settings = RetrainSettings(epochs=3, batch_size=8, max_bad_steps=1)
    loader, state = Images(24, 8), a_state(settings)
    loader.images[:] = float("nan")
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    train_to_the_end(state, loader, settings, 0, SingleProcess())
    assert state.skipped == 2
    for name, value in state.network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("ops", [2, 7])
def test_the_entropy_of_uniform_probabilities_is_the_log_of_their_number(ops: int) -> None:
    assert mean_entropy([torch.full((ops,), 1 / ops)] * 3) == pytest.approx(math.log(ops))


def test_a_decided_site_has_no_entropy() -> None:
    assert mean_entropy([torch.tensor([0.0, 1.0])]) == 0.0


def test_refreshed_statistics_are_the_mean_over_the_batches_and_nothing_else_moves() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()
    weights = [p.detach().clone() for p in network.parameters()]
    batches = [Batch(torch.randn(4, 1, 5, 5), torch.zeros(4).long(), 4) for _ in range(3)]
    refresh_statistics(network, batches)
    with torch.no_grad():
        outputs = [network[0](batch.images) for batch in batches]
    mean = torch.stack([y.mean((0, 2, 3)) for y in outputs]).mean(0)
    variance = torch.stack([y.var((0, 2, 3)) for y in outputs]).mean(0)
    norm = network[1]
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert (norm.momentum, network.training, norm.training) == (0.1, False, False)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), weights, strict=True))


def test_a_baseline_keeps_the_weights_that_it_is_built_with_drawn_from_the_seed() -> None:
    model = Baseline("mobilenet_v2_0.35", 1, 32, 3)

    def weights(seed: int) -> list[Tensor]:
        state = start_training(model, RetrainSettings(), seed, torch.device("cpu"))
        return [p.detach() for p in state.network.parameters()]

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    torch.manual_seed(counted_seed(0, "retrain weights"))
    built = [p.detach() for p in model.build().parameters()]
    assert all(torch.equal(a, b) for a, b in zip(first, built, strict=True))


def test_starting_a_training_does_not_disturb_other_random_draws() -> None:
    torch.manual_seed(5)
    start_training(Baseline("resnet18", 1, 32, 3), RetrainSettings(), 0, torch.device("cpu"))
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
