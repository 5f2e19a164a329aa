"""The search loop: what a step changes, resuming, several workers, and that it finds networks."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas_core import alpha_step as alpha_step_module
from nas_core.alpha_step import alpha_step
from nas_core.architecture import Architecture
from nas_core.batch import Batch, SearchData
from nas_core.derive import best_within
from nas_core.gates import sample_pairs
from nas_core.latency import LatencyTable
from nas_core.objective import LatencyGoal
from nas_core.progress import EpochReport
from nas_core.randomness import generator
from nas_core.ranking import score, scoring_batches
from nas_core.search import (
    alphas_digest,
    score_within,
    search_epochs,
    search_steps,
    start_search,
    weight_step,
)
from nas_core.search_settings import SearchSettings
from nas_core.search_state import STRATEGIES, Search, SearchState
from nas_core.train_step import Trainer
from nas_core.workers import DivergenceError, ProcessGroup, SingleProcess
from tests.support.supernets import EVERY_STRATEGY
from tests.support.thread_workers import Member, on_all
from tests.support.tiers import slow
from tests.support.tiny import K3, K5, K7, Images, all_paths, noisy_table, table_of, two_sites

SPACE = two_sites()
TABLE = noisy_table(SPACE, seed=0)
CPU = torch.device("cpu")
SETTINGS = SearchSettings(
    op_start="independent",  # equal ops would not move alphas
    objective="absolute",
    warmup_epochs=1,
    epochs=3,
    hold_epochs=1,
    batch_size=8,
    alpha_lr=0.05,
    alpha_every=2,
    bn_images=16,
)

LEARN = [name for name, make in STRATEGIES.items() if make().weights in ("path", "mixture")]


def goal(table: LatencyTable = TABLE) -> LatencyGoal:
    return LatencyGoal(table, sum(table.range_ms()) / 2, CPU)


def data(rank: int = 0, size: int = 1) -> SearchData:
    weight = Images(32, 8, seed=1, rank=rank, size=size)
    return SearchData(weight, Images(16, 8, seed=2, rank=rank, size=size))


def a_batch() -> Batch:
    return next(data().weight.batches(0))


def start(settings: SearchSettings = SETTINGS, seed: int = 0) -> SearchState:
    return start_search(SPACE, settings, seed, CPU)


def search(
    state: SearchState, settings: SearchSettings = SETTINGS, group: ProcessGroup | None = None
) -> list[EpochReport]:
    group = group or SingleProcess()
    parts = data(group.rank, group.size)
    return list(search_epochs(state, parts, goal(), settings, 0, group))


def step_on(state: SearchState, path: list[int]) -> None:
    weight_step(state, a_batch(), path, trainer_of(state), SETTINGS.lr)


def trainer_of(state: SearchState, settings: SearchSettings = SETTINGS) -> Trainer:
    return Trainer.of(state.weight_optimizer, state.scaler, settings, SingleProcess())


def step_alphas(
    state: SearchState,
    settings: SearchSettings = SETTINGS,
    seed: int = 0,
    table: LatencyTable = TABLE,
    batch: Batch | None = None,
    group: ProcessGroup | None = None,
) -> None:
    search = Search(state, data(), goal(table), settings, seed, group or SingleProcess())
    alpha_step(search, batch or a_batch())


@pytest.mark.parametrize("name", ["schedule", "precision", "strategy"])
def test_what_follows_from_the_settings_is_built_once_and_not_in_every_step(name: str) -> None:
    search = Search(start(), data(), goal(), SETTINGS, 0, SingleProcess())
    assert getattr(search, name) is getattr(search, name)


def everything(state: SearchState) -> dict[str, Tensor]:
    """Copies of parameters, buffers and momentum, by name."""
    result = {name: value.clone() for name, value in state.supernet.state_dict().items()}
    for name, p in state.supernet.named_parameters():
        for key, value in state.weight_optimizer.state.get(p, {}).items():
            if value is not None:
                result[f"{name}.{key}"] = value.clone()
    return result


def changes(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def assert_same(first: SearchState, second: SearchState) -> None:
    assert not changes(everything(first), everything(second))
    assert alphas_digest(first.supernet) == alphas_digest(second.supernet)


# What a step may touch


def trained_once() -> SearchState:
    """A state in which every op has momentum."""
    state = start(replace(SETTINGS, weight_decay=0.1))
    state.supernet.train()
    for choice in range(3):
        step_on(state, [choice, choice])
    return state


def test_ops_off_the_path_keep_weights_momentum_and_statistics_bit_for_bit() -> None:
    state = trained_once()
    before = everything(state)
    step_on(state, [0, 1])
    moved = changes(before, everything(state))
    assert all(n.startswith(("stem.", "head.", "sites.0.0.", "sites.1.1.")) for n in moved)


def test_ops_on_the_path_move_in_weights_momentum_and_statistics() -> None:
    state = trained_once()
    before = everything(state)
    step_on(state, [0, 1])
    moved = changes(before, everything(state))
    on_path = {n for n in before if n.startswith(("stem.", "head.", "sites.0.0.", "sites.1.1."))}
    assert moved == on_path


def test_weight_steps_are_sgd_with_nesterov_momentum_and_decay() -> None:
    state = start(replace(SETTINGS, lr=0.1, momentum=0.8, weight_decay=0.01))
    conv = state.supernet.stem[0].weight
    assert isinstance(conv, Tensor)
    expected, velocity = conv.detach().double(), torch.zeros(conv.shape).double()
    for _ in range(3):
        weight_step(state, a_batch(), [0, 1], trainer_of(state), 0.1)
        assert conv.grad is not None
        slope = conv.grad.double() + 0.01 * expected
        velocity = 0.8 * velocity + slope
        expected = expected - 0.1 * (slope + 0.8 * velocity)
        torch.testing.assert_close(conv.detach().double(), expected, rtol=0, atol=1e-6)


def test_no_weight_optimizer_holds_an_alpha_and_none_lacks_a_weight() -> None:
    state = start()
    held = {id(p) for group in state.weight_optimizer.param_groups for p in group["params"]}
    named = dict(state.supernet.named_parameters())
    assert held == {id(p) for name, p in named.items() if not name.startswith("alpha.")}
    others = {id(p) for group in state.alpha_optimizer.param_groups for p in group["params"]}
    assert others == {id(p) for name, p in named.items() if name.startswith("alpha.")}


@pytest.mark.parametrize("strategy", LEARN)
def test_an_alpha_step_moves_alphas_and_nothing_else(strategy: Any) -> None:
    state = trained_once()
    before = everything(state)
    for seed in range(5):
        step_alphas(state, replace(SETTINGS, strategy=strategy), seed)
    assert changes(before, everything(state)) == {"alpha.0", "alpha.1"}


class WeightGrads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts backward kernels, and those of them that compute a gradient of weights."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = self.with_weights = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "convolution_backward" in str(func) or "batch_norm_backward" in str(func):
            wants = args[-1]  # output_mask: input, weight, bias
            self.kernels += 1
            self.with_weights += any(wants[1:])
        return func(*args, **(kwargs or {}))


def backward_kernels(step: Callable[[], None]) -> WeightGrads:
    seen = WeightGrads()
    with seen:
        step()
    return seen


@pytest.mark.parametrize("strategy", ["two_path", "full_path", "darts"])
def test_an_alpha_step_computes_no_gradient_of_a_weight(strategy: Any) -> None:
    state, settings = start(), replace(SETTINGS, strategy=strategy)
    for seed in range(5):
        seen = backward_kernels(lambda seed=seed: step_alphas(state, settings, seed))  # type: ignore[misc]
        assert seen.kernels > 0
        assert seen.with_weights == 0
    assert all(p.grad is None for p in state.supernet.parameters())


def test_an_alpha_step_of_reinforce_runs_no_backward_at_all() -> None:
    state = start()
    state.baseline = 0.1
    settings = replace(SETTINGS, strategy="reinforce")
    assert backward_kernels(lambda: step_alphas(state, settings)).kernels == 0


def test_a_weight_step_computes_the_gradients_of_one_path() -> None:
    seen = backward_kernels(lambda: step_on(start(), [0, 0]))
    layers = 2 * (1 + 3 + 3 + 1)  # stem, two blocks of three, head: a convolution and a BatchNorm
    assert (seen.kernels, seen.with_weights) == (layers, layers)


# Alphas


def test_without_a_latency_term_ops_outside_a_settled_pair_keep_their_probability() -> None:
    space = two_sites((K3, K5, K7, "skip"))
    settings = replace(SETTINGS, objective="none", alpha_lr=0.5, settle_pairs=True)
    state = start_search(space, settings, 0, CPU)
    table = noisy_table(space, 0)
    for seed in range(10):
        before = state.supernet.probs()
        step_alphas(state, settings, seed, table)
        for old, new in zip(before, state.supernet.probs(), strict=True):
            moved = (old - new).abs() > 1e-6
            assert int(moved.sum()) == 2


def test_ops_outside_a_settled_pair_move_as_by_the_latency_alone() -> None:
    space = two_sites((K3, K5, K7, "skip"))
    table = noisy_table(space, 0)
    settings = replace(SETTINGS, beta=0.3, settle_pairs=True)
    state = start_search(space, settings, 0, CPU)
    costs = [torch.tensor(row) for row in table.costs_ms(space)]
    for number in range(6):  # later steps depend on Adam's averages
        alphas, optimizer = copy.deepcopy((state.supernet.alphas(), state.alpha_optimizer))
        per_site = [a.softmax(0) @ c for a, c in zip(alphas, costs, strict=True)]
        latency = torch.stack(per_site).sum() + table.fixed_ms(space)
        penalty = 0.3 * (latency / goal(table).budget_ms - 1).abs()
        penalty.backward()  # type: ignore[no-untyped-call]
        optimizer.param_groups[0]["lr"] = settings.alpha_lr
        optimizer.step()
        pairs = sample_pairs(state.supernet.probs(), generator(0, "pairs", number))
        step_alphas(state, settings, 0, table)
        for result, expected, pair in zip(state.supernet.alphas(), alphas, pairs, strict=True):
            outside = [j for j in range(4) if j not in pair]
            torch.testing.assert_close(result[outside], expected[outside])
            torch.testing.assert_close(result.softmax(0)[outside], expected.softmax(0)[outside])


def test_alphas_stand_still_in_the_warm_up_and_while_they_are_held() -> None:
    state = start()
    digest = alphas_digest(state.supernet)
    epochs = search_epochs(state, data(), goal(), SETTINGS, 0, SingleProcess())
    digests = []
    for _ in epochs:
        digests.append(alphas_digest(state.supernet))
    assert digests[:2] == [digest, digest]
    assert len({digest, *digests[2:]}) == 3
    assert state.alpha_steps == 2 * 2  # two epochs of four steps, one update after every second


def test_every_alpha_step_takes_another_batch() -> None:
    class Counting(Images):
        seen: list[Tensor]

        def batches(self, start: int) -> Any:
            for batch in super().batches(start):
                self.seen.append(batch.images)
                yield batch

    held_out = Counting(16, 8, seed=2)
    held_out.seen = []
    parts = SearchData(data().weight, held_out)
    list(search_epochs(start(), parts, goal(), SETTINGS, 0, SingleProcess()))
    assert len(held_out.seen) == 4
    assert not any(
        torch.equal(a, b) for a, b in zip(held_out.seen, held_out.seen[1:], strict=False)
    )


def test_alphas_move_after_every_few_weight_steps_each_time_on_other_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[object] = []
    state, settings = start(), replace(SETTINGS, warmup_epochs=0, hold_epochs=0, alpha_every=3)
    state.supernet.register_forward_pre_hook(lambda _net, _args: events.append("weights"))
    monkeypatch.setattr(
        alpha_step_module,
        "_move_alphas",
        lambda _search, _accuracy, _latency, pairs: events.append(tuple(pairs)),
    )
    loader = Images(64, 8)
    list(search_epochs(state, SearchData(loader, loader), goal(), settings, 0, SingleProcess()))
    kinds = ["weights" if event == "weights" else "alphas" for event in events]
    turn = ["weights", "weights", "weights", "alphas"]
    assert kinds == turn * (8 * 3 // 3)  # three epochs of eight steps, counted across epochs
    pairs = [event for event in events if event != "weights"]
    assert len(set(pairs)) > 1


def test_alphas_move_even_where_an_epoch_has_fewer_steps_than_a_turn() -> None:
    state = start()
    settings = replace(SETTINGS, warmup_epochs=0, hold_epochs=0, epochs=3, alpha_every=5)
    loader = Images(8, 4)  # two steps an epoch, six in all
    list(search_epochs(state, SearchData(loader, loader), goal(), settings, 0, SingleProcess()))
    assert state.alpha_steps == 1


def test_a_late_first_gradient_moves_no_alpha_far() -> None:
    state, lr = start(), SETTINGS.alpha_lr
    for alpha in state.supernet.alphas():  # Adam's averages after a long time without gradients
        state.alpha_optimizer.state[alpha] = {
            "step": torch.tensor(10_000.0),
            "exp_avg": torch.zeros_like(alpha),
            "exp_avg_sq": torch.zeros_like(alpha),
        }
    before = [alpha.detach().clone() for alpha in state.supernet.alphas()]
    step_alphas(state, replace(SETTINGS, beta=1.0, settle_pairs=True))
    moves = [a.detach() - b for a, b in zip(state.supernet.alphas(), before, strict=True)]
    # Adam alone would move them by 100 times the rate. Its step is bounded to twice the rate; the
    # shift that settles a pair comes on top, and is no larger than the moves of the pair.
    assert 0 < max(float(move.abs().max()) for move in moves) <= 4 * lr + 1e-6


@pytest.mark.parametrize("is_settled", [True, False])
def test_a_pair_keeps_its_total_where_pairs_are_settled(is_settled: bool) -> None:
    state = start()
    alphas = state.supernet.alphas()
    before = [alpha.logsumexp(0).item() for alpha in alphas]
    step_alphas(state, replace(SETTINGS, objective="none", settle_pairs=is_settled))
    after = [alpha.logsumexp(0).item() for alpha in alphas]
    assert (after == pytest.approx(before, abs=1e-6)) is is_settled


def test_equal_digests_mean_equal_alphas() -> None:
    first, second = start().supernet, start().supernet
    assert alphas_digest(first) == alphas_digest(second)
    second.alphas()[1].data[0] = torch.nextafter(second.alphas()[1].data[0], torch.tensor(9.0))
    assert alphas_digest(first) != alphas_digest(second)


def test_reports_tell_phase_latency_and_entropy() -> None:
    reports = search(start())
    assert [(r.phase, r.epoch) for r in reports] == [
        ("warmup", 0),
        ("search", 1),
        ("search", 2),
        ("search", 3),
    ]
    fastest, slowest = TABLE.range_ms()
    assert reports[0].latency_ms is None  # a warm-up is the same for all hardware
    for report in reports:
        latency_ms = report.latency_ms
        assert report.phase == "warmup" or fastest < (latency_ms or 0.0) < slowest
        assert report.entropy is not None
        assert 0 < report.entropy <= torch.tensor(3.0).log().item() + 1e-6


def test_the_warm_up_draws_ops_equally_and_the_search_by_probability() -> None:
    state = start(replace(SETTINGS, warmup_epochs=1, epochs=1, hold_epochs=0))
    for alpha in state.supernet.alphas():
        alpha.data.copy_(torch.tensor([50.0, 0.0, 0.0]))
    drawn: list[tuple[int, ...]] = []

    def note(_net: nn.Module, args: tuple[Tensor, list[int]]) -> None:
        drawn.append(tuple(args[1]))

    state.supernet.register_forward_pre_hook(note)
    loader = Images(54, 2)
    settings = replace(SETTINGS, warmup_epochs=1, epochs=1, hold_epochs=0)
    list(search_epochs(state, SearchData(loader, loader), goal(), settings, 0, SingleProcess()))
    assert set(drawn[:27]) == {(i, j) for i in range(3) for j in range(3)}
    assert min(Counter(first for first, _ in drawn[:27]).values()) > 4  # of 9 each
    assert set(drawn[27:]) == {(0, 0)}


def test_every_epoch_draws_other_paths() -> None:
    state, drawn = start(), []
    state.supernet.register_forward_pre_hook(lambda _net, args: drawn.append(tuple(args[1])))
    settings, loader = replace(SETTINGS, warmup_epochs=2, epochs=1, hold_epochs=0), Images(16, 2)
    list(search_epochs(state, SearchData(loader, loader), goal(), settings, 0, SingleProcess()))
    assert drawn[:8] != drawn[8:16]


def test_warm_up_and_search_each_fall_along_half_a_cosine() -> None:
    settings = replace(SETTINGS, warmup_epochs=1, epochs=2, warmup_lr=0.08, lr=0.02)
    state, rates = start(settings), []

    def note(_net: nn.Module, _args: object) -> None:
        rates.append(state.weight_optimizer.param_groups[0]["lr"])

    state.supernet.register_forward_pre_hook(note)
    search(state, settings)
    warmup = [0.04 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    searched = [0.01 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert rates == pytest.approx(warmup + searched)


def test_the_loss_of_a_weight_step_is_smoothed_cross_entropy() -> None:
    state, batch = start(), a_batch()
    trainer = trainer_of(state, replace(SETTINGS, label_smoothing=0.3))
    logits = copy.deepcopy(state.supernet)(batch.images, [0, 1])
    spread = 0.7 * F.one_hot(batch.labels, 3) + 0.3 / 3
    expected = -(spread * logits.detach().log_softmax(1)).sum(1).mean()
    weight_step(state, batch, [0, 1], trainer, SETTINGS.lr)
    assert state.tally.evaluation(SingleProcess()).loss == pytest.approx(float(expected), rel=1e-5)


# Resuming


def saved(state: SearchState) -> Any:
    """Everything that a checkpoint contains."""
    modules = (state.supernet, state.weight_optimizer, state.alpha_optimizer)
    own = (state.alpha_steps, state.baseline, state.multiplier, state.trials)
    common = (state.counters(), state.tally.sums)
    return copy.deepcopy((*(module.state_dict() for module in modules), own, common))


def restored(values: Any, settings: SearchSettings) -> SearchState:
    """State of another process, restored from a checkpoint."""
    state = start(settings, seed=99)
    state.supernet.load_state_dict(values[0])
    state.weight_optimizer.load_state_dict(values[1])
    state.alpha_optimizer.load_state_dict(values[2])
    state.alpha_steps, state.baseline, state.multiplier, state.trials = values[3]
    state.restore(*values[4])
    return state


OF_STRATEGY = {
    "evolution": {"population": 3, "tournament": 2},
    "rl_trials": {"trial_epochs": 1, "batch_size": 8},
    "reinforce": {"samples": 3},
}


@pytest.mark.parametrize("strategy", EVERY_STRATEGY)
def test_a_search_resumed_after_every_epoch_equals_an_uninterrupted_one_bit_for_bit(
    strategy: Any,
) -> None:
    special: dict[str, Any] = OF_STRATEGY.get(strategy, {})
    settings = replace(SETTINGS, strategy=strategy, objective="learnt", **special)
    whole, resumed = start(settings), start(settings)
    reports = search(whole, settings)
    for expected in reports:
        assert (
            next(search_epochs(resumed, data(), goal(), settings, 0, SingleProcess())) == expected
        )
        resumed = restored(saved(resumed), settings)
        torch.manual_seed(12345)
    assert search(resumed, settings) == []
    assert_same(resumed, whole)
    assert resumed.trials == whole.trials
    assert (resumed.baseline, resumed.multiplier) == (whole.baseline, whole.multiplier)


STOPS = [1, 3, 6, 7, 10, 13]
"""Steps in the middle of epochs, and at the end of one."""


@pytest.mark.parametrize("strategy", ["two_path", *slow("reinforce", "darts"), "random"])
def test_a_search_resumed_in_the_middle_of_an_epoch_equals_an_uninterrupted_one_bit_for_bit(
    strategy: Any,
) -> None:
    settings = replace(SETTINGS, strategy=strategy, objective="learnt", samples=3, alpha_every=3)
    whole, resumed = start(settings), start(settings)
    expected = search(whole, settings)
    reports: list[EpochReport] = []
    for steps in (stop - before for before, stop in pairwise([0, *STOPS])):
        search_on = search_steps(Search(resumed, data(), goal(), settings, 0, SingleProcess()))
        reports += [item for item in islice(search_on, steps) if item is not None]
        resumed = restored(saved(resumed), settings)
    assert reports + search(resumed, settings) == expected
    assert_same(resumed, whole)
    assert resumed.trials == whole.trials


def test_a_state_left_in_evaluation_mode_searches_like_any_other() -> None:
    settings = replace(SETTINGS, epochs=1, hold_epochs=0)
    whole, evaluated = start(settings), start(settings)
    evaluated.supernet.eval()
    assert search(evaluated, settings) == search(whole, settings)
    assert_same(evaluated, whole)


def test_a_copied_state_searches_on_by_itself() -> None:
    settings = replace(SETTINGS, epochs=1, hold_epochs=0)
    whole, first = start(settings), start(settings)
    search(whole, settings)
    next(search_epochs(first, data(), goal(), settings, 0, SingleProcess()))
    second = copy.deepcopy(first)
    search(first, settings)
    search(second, settings)
    assert_same(second, whole)


# Workers


def test_two_workers_end_with_the_same_alphas_and_weights() -> None:
    def work(member: Member) -> tuple[SearchState, list[EpochReport]]:
        state = start()
        return state, search(state, group=member)

    (first, reports), (second, other_reports) = on_all(2, work)
    assert alphas_digest(first.supernet) == alphas_digest(second.supernet)
    for weight, other in zip(first.supernet.weights(), second.supernet.weights(), strict=True):
        assert torch.equal(weight, other)
    assert reports == other_reports
    assert alphas_digest(first.supernet) != alphas_digest(start().supernet)


def test_two_workers_with_the_same_images_move_alphas_as_one_with_all_of_them() -> None:
    # Both draw the same active op here and see the same images: their mean is that of one worker.
    batch = a_batch()
    alone = start()
    step_alphas(alone, batch=batch)

    def work(member: Member) -> str:
        state, same = start(), Batch(batch.images, batch.labels, 2 * batch.total)
        member.rank = 0
        step_alphas(state, batch=same, group=member)
        return alphas_digest(state.supernet)

    assert set(on_all(2, work)) == {alphas_digest(alone.supernet)}


def test_workers_that_do_not_average_are_found_out_at_the_end_of_the_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Member, "sum", lambda _self, _tensors: None)

    def work(member: Member) -> None:
        search(start(), replace(SETTINGS, warmup_epochs=0, hold_epochs=0), member)

    with pytest.raises(DivergenceError, match="workers disagree on the architecture parameters"):
        on_all(2, work)


# It is a search


@pytest.mark.slow
@pytest.mark.parametrize(("cheap", "dear"), [(K7, K3), (K3, K7)])
def test_the_derived_network_follows_the_table(cheap: str, dear: str) -> None:
    space = two_sites((K3, K7))
    table = table_of(space, lambda part: {cheap: 1.0, dear: 10.0}.get(part.op, 0.1))
    fastest, slowest = table.range_ms()
    settings = replace(SETTINGS, epochs=5, beta=1.0, alpha_every=1, alpha_lr=0.25)
    state = start_search(space, settings, 0, CPU)
    budget = LatencyGoal(table, fastest, CPU)
    list(search_epochs(state, data(), budget, settings, 0, SingleProcess()))
    # Derived without a limit, so that only the probabilities matter.
    derived = best_within(state.supernet.log_probs(), table, slowest)
    assert derived == Architecture.uniform(space, cheap)
    assert float(budget.expected_ms(state.supernet.probs())) < 0.25 * slowest


@pytest.mark.slow
@pytest.mark.parametrize("strategy", LEARN)
def test_a_score_in_between_leaves_the_search_as_it_is(strategy: str) -> None:
    settings = replace(SETTINGS, strategy=strategy)
    scored, undisturbed = start(settings), start(settings)
    search(undisturbed, settings)
    whole = Search(scored, data(), goal(), settings, 0, SingleProcess())
    random_state = torch.get_rng_state()
    scores = [score_within(whole) for report in search_steps(whole) if report is not None]
    assert all(0 <= score <= 1 for score in scores)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not changes(everything(undisturbed), everything(scored))


def test_a_score_is_that_of_the_most_probable_network_within_the_budget() -> None:
    state = start()
    for alpha in state.supernet.alphas():
        alpha.data = torch.arange(len(alpha), dtype=alpha.dtype)
    whole = Search(state, data(), goal(), SETTINGS, 0, SingleProcess())
    within = [p for p in all_paths(SPACE) if goal().path_ms(list(p)) <= goal().budget_ms]
    best = max(within, key=sum)
    batches = scoring_batches(whole.data, SETTINGS)
    assert score_within(whole) == score(state.supernet, best, *batches, SingleProcess()).top1
