"""Contract of all strategies, with every objective, in a single process and in a group."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import pytest
import torch

from nas_core.alpha_step import alpha_step
from nas_core.batch import Batch, SearchData
from nas_core.objective import OBJECTIVES, LatencyGoal
from nas_core.progress import EpochReport
from nas_core.search import alphas_digest, choose, latency_note, search_epochs, start_search
from nas_core.search_settings import ObjectiveName, SearchSettings, Strategy
from nas_core.search_state import STRATEGIES, SearchState
from nas_core.workers import ProcessGroup, SingleProcess
from tests.support.supernets import CPU, EVERY_STRATEGY, a_batch, a_context, a_search, a_supernet
from tests.support.thread_workers import Member, on_all
from tests.support.tiny import Images, noisy_table, table_of, two_sites

SPACE = two_sites()
TABLE = table_of(SPACE, lambda part: 2.0 + len(part.op) % 3 + part.resolution / 8)
LEARN = [name for name, make in STRATEGIES.items() if make().weights in ("path", "mixture")]


def settings(strategy: Any, objective: Any = None, **values: Any) -> SearchSettings:
    return SearchSettings(
        strategy=strategy,
        objective=objective,
        **{
            "warmup_epochs": 1,
            "epochs": 2,
            "hold_epochs": 0,
            "batch_size": 8,
            "alpha_every": 2,
            "samples": 2,
            "population": 2,
            "tournament": 2,
            "trial_epochs": 1,
            "bn_images": 16,
            **values,
        },
    )


def goal() -> LatencyGoal:
    return LatencyGoal(TABLE, sum(TABLE.range_ms()) / 2, CPU)


def search(chosen: SearchSettings, group: ProcessGroup | None = None) -> tuple[SearchState, Any]:
    group = group or SingleProcess()
    state = start_search(SPACE, chosen, 0, CPU)
    parts = SearchData(
        Images(32, 8, seed=1, rank=group.rank, size=group.size),
        Images(16, 8, seed=2, rank=group.rank, size=group.size),
    )
    reports: list[EpochReport] = list(search_epochs(state, parts, goal(), chosen, 0, group))
    return state, reports


def test_every_strategy_and_objective_of_a_job_file_exists_and_no_other() -> None:
    assert set(STRATEGIES) == set(get_args(Strategy))
    assert set(OBJECTIVES) == set(get_args(ObjectiveName))


@pytest.mark.parametrize(
    ("strategy", "objective"),
    [
        # Each strategy and each objective once; the other pairs are slow.
        pytest.param(*pair, marks=() if set(pair) & {"two_path", "absolute"} else pytest.mark.slow)
        for pair in product(STRATEGIES, OBJECTIVES)
    ],
)
def test_every_strategy_finds_a_network_within_the_budget_with_every_objective(
    strategy: str, objective: str
) -> None:
    chosen = settings(strategy, objective)
    state, reports = search(chosen)
    result = choose(state, TABLE, goal().budget_ms, chosen)
    assert TABLE.latency_ms(result) <= goal().budget_ms
    assert all(report.loss == report.loss for report in reports)  # a number
    assert all(bool(alpha.isfinite().all()) for alpha in state.supernet.alphas())


@pytest.mark.parametrize("strategy", [*LEARN, "rl_trials"])
def test_strategies_that_learn_move_the_architecture_parameters(strategy: str) -> None:
    chosen = settings(strategy)
    state, _ = search(chosen)
    assert alphas_digest(state.supernet) != alphas_digest(
        start_search(SPACE, chosen, 0, CPU).supernet
    )


@pytest.mark.parametrize("strategy", EVERY_STRATEGY)
def test_two_workers_end_with_the_same_alphas_trials_and_reports(strategy: str) -> None:
    (first, reports), (second, others) = on_all(2, lambda m: search(settings(strategy), m))
    assert alphas_digest(first.supernet) == alphas_digest(second.supernet)
    assert first.trials == second.trials
    assert (first.baseline, first.multiplier) == (second.baseline, second.multiplier)
    assert reports == others


def test_workers_of_reinforce_score_networks_of_their_own() -> None:
    net, batch = a_supernet(0), a_batch(0)
    others = replace(batch, first=8)
    mine = STRATEGIES["reinforce"]().update(a_context(net, batch, baseline=0.2))
    other = STRATEGIES["reinforce"]().update(a_context(net, others, baseline=0.2))
    assert mine.grads is not None
    assert other.grads is not None
    assert not torch.equal(mine.grads[0], other.grads[0])


def test_workers_of_reinforce_update_by_their_mean_gradient() -> None:
    chosen = settings("reinforce", "none")
    batch = next(Images(16, 8).batches(0))

    def found(rank: int) -> list[torch.Tensor]:
        net = start_search(SPACE, chosen, 0, CPU).supernet.train()
        part = replace(batch, first=8 * rank)
        context = a_context(net, part, chosen, goal=goal(), baseline=0.2)
        grads = STRATEGIES["reinforce"]().update(context).grads
        assert grads is not None
        return grads

    expected = [(a + b) / 2 for a, b in zip(found(0), found(1), strict=True)]

    def work(member: Member) -> list[torch.Tensor]:
        state = start_search(SPACE, chosen, 0, CPU)
        state.supernet.train()
        state.baseline = 0.2
        taken: list[torch.Tensor] = []
        alphas = state.supernet.alphas()
        state.alpha_optimizer.register_step_pre_hook(
            lambda *_: taken.extend(a.grad.clone() for a in alphas if a.grad is not None)
        )
        half = Batch(batch.images, batch.labels, 2 * batch.total, 8 * member.rank)
        alpha_step(a_search(state, goal(), chosen, group=member), half)
        return taken

    for taken in on_all(2, work):
        for item, other in zip(taken, expected, strict=True):
            torch.testing.assert_close(item, other)


def test_the_baseline_is_a_moving_average_updated_after_it_was_used() -> None:
    chosen = settings("reinforce", "none", baseline_momentum=0.9, samples=3)
    state = start_search(SPACE, chosen, 0, CPU)
    state.supernet.train()
    expected = None
    for number in range(3):
        twin = copy.deepcopy(state)
        batch = next(Images(16, 8).batches(number))
        context = a_context(
            twin.supernet, batch, chosen, goal=goal(), number=number, baseline=expected
        )
        update = STRATEGIES["reinforce"]().update(context)
        assert update.reward is not None
        expected = update.reward if expected is None else 0.9 * expected + 0.1 * update.reward
        alpha_step(a_search(state, goal(), chosen), batch)
        assert state.baseline == pytest.approx(expected)


# What is said at the end


def with_alphas_on(op: int) -> SearchState:
    state = start_search(SPACE, settings("two_path"), 0, CPU)
    for alpha in state.supernet.alphas():
        alpha.data[op] = 50.0
    return state


def far_and_near() -> tuple[SearchState, LatencyGoal, LatencyGoal]:
    state = with_alphas_on(0)
    at = float(goal().expected_ms(state.supernet.probs()))
    return state, LatencyGoal(TABLE, 0.8 * at, CPU), LatencyGoal(TABLE, 0.95 * at, CPU)


def test_an_expected_latency_over_a_tenth_from_the_budget_is_blamed_on_the_penalty() -> None:
    state, far, near = far_and_near()
    note = latency_note(state, far, settings("two_path", "absolute"))
    assert note is not None
    assert "+25% from the budget" in note
    assert "the penalty was too weak; raise beta, or take objective 'learnt'" in note
    assert latency_note(state, near, settings("two_path", "absolute")) is None


@pytest.mark.parametrize(
    ("objective", "advice"),
    [
        ("add_linear", "'add_linear' pushes on below a budget; lower beta, or take objective 'le"),
        ("power", "'power' pushes on below a budget; lower beta, or take objective 'learnt'"),
        ("absolute", "the penalty was too weak; raise beta, or take objective 'learnt'"),
        ("learnt", "the penalty was too weak for so few updates; raise epochs or rho"),
    ],
)
def test_below_the_budget_the_advice_is_that_of_the_objective(objective: str, advice: str) -> None:
    state = with_alphas_on(0)
    budget_ms = 1.5 * float(goal().expected_ms(state.supernet.probs()))
    note = latency_note(state, LatencyGoal(TABLE, budget_ms, CPU), settings("two_path", objective))
    assert note is not None
    assert "-33% from the budget" in note
    assert advice in note


def test_without_a_latency_term_that_is_said_instead() -> None:
    state, far, _ = far_and_near()
    note = latency_note(state, far, settings("two_path", "none"))
    assert note is not None
    assert note.endswith("objective 'none' has no latency term")


def test_strategies_that_stay_within_the_budget_have_no_note() -> None:
    state, far, _ = far_and_near()
    assert latency_note(state, far, settings("random")) is None


def test_chosen_by_probability_the_network_is_the_most_probable_within_the_budget() -> None:
    table = noisy_table(SPACE, 4)
    state = with_alphas_on(1)
    result = choose(state, table, table.range_ms()[1], settings("two_path"))
    assert result.path() == [1, 1]
