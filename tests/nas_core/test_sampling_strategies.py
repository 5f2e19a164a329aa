"""Sampling strategies: the budget, comparable scores, and the rules of the original methods."""

from __future__ import annotations

import copy
from collections import Counter
from math import exp, isnan
from typing import Any

import pytest
import torch

from nas_core.batch import SearchData
from nas_core.derive import BudgetError
from nas_core.latency import LatencyTable
from nas_core.objective import LatencyGoal
from nas_core.progress import EpochReport, Evaluation
from nas_core.published import pixel1
from nas_core.ranking import score, scoring_batches
from nas_core.sampling_strategies import (
    Evolution,
    Random,
    RLTrials,
    mutated,
    quality,
    random_at,
    random_networks_at,
    random_within,
)
from nas_core.search import choose, search_epochs, start_search
from nas_core.search_settings import SearchSettings
from nas_core.search_state import SearchState
from nas_core.space import proxyless_imagenet
from nas_core.strategy import ScoredNetwork, UpdateContext
from nas_core.workers import SingleProcess
from tests.support.supernets import CPU, a_context
from tests.support.tiny import Images, all_paths, noisy_table, two_sites

SPACE = two_sites(sites=3)  # 27 networks
TABLE = noisy_table(SPACE, seed=1)


def goal_at(part: float, table: LatencyTable = TABLE) -> LatencyGoal:
    """A budget between that of the fastest network (0) and one that all networks meet (1)."""
    fastest, slowest = table.range_ms()
    return LatencyGoal(table, fastest + part * (slowest - fastest) + 1e-9, CPU)


def data() -> SearchData:
    return SearchData(Images(32, 8, seed=1), Images(16, 8, seed=2))


def settings(**values: Any) -> SearchSettings:
    short = {"warmup_epochs": 1, "epochs": 3, "hold_epochs": 1, "batch_size": 8, "alpha_every": 2}
    return SearchSettings(**{**short, "bn_images": 16, **values})


def context(strategy: str, **facts: Any) -> UpdateContext:
    chosen = settings(strategy=strategy, **facts.pop("settings", {}))
    net = start_search(SPACE, chosen, 0, CPU).supernet.train()
    return a_context(net, None, chosen, **{"goal": goal_at(0.5), "data": data(), **facts})


def trial(path: tuple[int, ...], value: float) -> ScoredNetwork:
    return ScoredNetwork(path, value, 1 - value, goal_at(0.5).path_ms(list(path)), value)


def searched(chosen: SearchSettings, part: float = 0.5) -> tuple[SearchState, list[EpochReport]]:
    state = start_search(SPACE, chosen, 0, CPU)
    return state, list(search_epochs(state, data(), goal_at(part), chosen, 0, SingleProcess()))


# Networks within the budget


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 1.0])
def test_random_networks_are_within_the_budget(part: float) -> None:
    goal, rng = goal_at(part), torch.Generator().manual_seed(0)
    for _ in range(50):
        assert goal.path_ms(random_within(goal, rng)) <= goal.budget_ms


def test_where_many_are_within_the_budget_all_of_them_are_equally_likely() -> None:
    goal, rng = goal_at(0.5), torch.Generator().manual_seed(0)
    feasible = [p for p in all_paths(SPACE) if goal.path_ms(list(p)) <= goal.budget_ms]
    draws = 100 * len(feasible)
    seen = Counter(tuple(random_within(goal, rng)) for _ in range(draws))
    assert set(seen) == set(feasible)
    assert all(abs(n - 100) < 5 * 100**0.5 for n in seen.values())


def test_where_only_a_few_in_a_million_are_within_the_budget_some_are_found() -> None:
    space = two_sites(sites=12)
    table = noisy_table(space, 0)
    goal, rng = goal_at(0.02, table), torch.Generator().manual_seed(0)
    result = {tuple(random_within(goal, rng)) for _ in range(20)}
    assert len(result) > 3
    assert all(goal.path_ms(list(path)) <= goal.budget_ms for path in result)


# Networks at a latency


def in_window(goal: LatencyGoal, part: float = 0.95) -> set[tuple[int, ...]]:
    """Networks between this fraction of the budget and the budget."""
    result = {path: goal.path_ms(list(path)) for path in all_paths(SPACE)}
    return {p for p, ms in result.items() if part * goal.budget_ms <= ms <= goal.budget_ms}


def budgets() -> list[float]:
    """Budgets equal to the latency of each network of the space."""
    return sorted(goal_at(0.5).path_ms(list(path)) for path in all_paths(SPACE))


@pytest.mark.parametrize("budget_ms", budgets())
def test_a_random_network_is_in_the_window_whenever_there_is_one(budget_ms: float) -> None:
    goal, rng = LatencyGoal(TABLE, budget_ms, CPU), torch.Generator().manual_seed(0)
    for least in (0.5, 0.95, 0.9999, 1.0):
        assert tuple(random_at(goal, least * budget_ms, rng)) in in_window(goal, least)


@pytest.mark.parametrize("part", [0.3, 1.0])
def test_all_networks_of_the_window_are_equally_likely(part: float) -> None:
    goal, rng = goal_at(part), torch.Generator().manual_seed(0)
    window = in_window(goal, 0.8)
    draws = 100 * len(window)
    seen = Counter(tuple(random_at(goal, 0.8 * goal.budget_ms, rng)) for _ in range(draws))
    assert set(seen) == window
    assert all(abs(n - 100) < 5 * 100**0.5 for n in seen.values())


def test_where_the_window_is_empty_the_slowest_network_is_taken() -> None:
    ordered = budgets()
    below = max(range(1, 27), key=lambda i: ordered[i] - ordered[i - 1])
    budget_ms = (ordered[below - 1] + ordered[below]) / 2
    goal, rng = LatencyGoal(TABLE, budget_ms, CPU), torch.Generator().manual_seed(0)
    assert goal.path_ms(random_at(goal, 0.9999 * budget_ms, rng)) == ordered[below - 1]


def test_networks_at_a_latency_are_found_where_they_are_few_in_a_million() -> None:
    space = two_sites(sites=12)
    goal = goal_at(0.02, noisy_table(space, 0))
    result = random_networks_at(goal, 5, seed=0)
    assert len({tuple(path) for path in result}) == 5
    assert all(0.95 <= goal.path_ms(path) / goal.budget_ms <= 1 for path in result)


@pytest.mark.parametrize("budget_ms", [35.0, 80.0, 110.0, 150.0])
def test_networks_at_a_latency_are_found_in_the_published_space(budget_ms: float) -> None:
    goal = LatencyGoal(
        pixel1.table(proxyless_imagenet()), budget_ms, CPU
    )  # a skip has a negative latency
    result = random_networks_at(goal, 3, seed=0)
    assert len({tuple(path) for path in result}) == 3
    assert all(0.95 <= goal.path_ms(path) / budget_ms <= 1 for path in result)


def test_more_networks_go_on_where_fewer_ended_and_another_seed_draws_others() -> None:
    goal = goal_at(0.5, noisy_table(two_sites(sites=8), 0))
    result = random_networks_at(goal, 6, seed=0)
    assert random_networks_at(goal, 3, seed=0) == result[:3]
    assert random_networks_at(goal, 6, seed=1) != result


def test_no_more_networks_are_drawn_than_the_window_has() -> None:
    goal = goal_at(0.7)
    result = random_networks_at(goal, 50, seed=0)
    slowest = max(ms for ms in budgets() if ms <= goal.budget_ms)
    assert {tuple(path) for path in result} == in_window(goal, 0.95 * slowest / goal.budget_ms)
    assert 1 < len(result) < 27


@pytest.mark.parametrize("seed", range(20))
def test_a_child_differs_from_its_parent_at_one_site_and_is_within_the_budget(seed: int) -> None:
    goal, rng = goal_at(0.5), torch.Generator().manual_seed(seed)
    parent = random_within(goal, rng)
    child = mutated(parent, goal, rng)
    assert sum(a != b for a, b in zip(parent, child, strict=True)) == 1
    assert goal.path_ms(child) <= goal.budget_ms


# Scores


@pytest.mark.parametrize("strategy", [Random, Evolution])
def test_a_network_is_scored_with_supernet_weights(strategy: Any) -> None:
    stage = context("random")
    result = strategy().update(stage).trial
    assert result is not None
    batches = scoring_batches(stage.data, stage.settings)
    seen = score(stage.net, result.path, *batches, SingleProcess())
    assert (result.accuracy, result.loss, result.score) == (seen.top1, seen.loss, seen.top1)
    assert result.latency_ms == pytest.approx(stage.goal.path_ms(list(result.path)))


def test_by_cross_entropy_a_score_is_the_mean_probability_of_the_truth() -> None:
    result = Random().update(context("random", settings={"scored_by": "cross_entropy"})).trial
    assert result is not None
    assert result.score == pytest.approx(exp(-result.loss))


def test_a_network_that_diverged_scores_nothing() -> None:
    diverged = Evaluation(loss=float("nan"), top1=0.1, top5=0.5, count=10)
    assert quality(diverged, settings(scored_by="cross_entropy")) == 0.0
    assert quality(diverged, settings(scored_by="accuracy")) == 0.1


def test_an_objective_with_latency_enters_the_score() -> None:
    stage = context("random", settings={"objective": "power", "beta": 1.0})
    result = Random().update(stage).trial
    assert result is not None
    assert result.score == pytest.approx(result.accuracy * stage.goal.budget_ms / result.latency_ms)


@pytest.mark.parametrize("strategy", ["random", "evolution", "rl_trials"])
def test_an_update_changes_no_weight_no_alpha_and_no_buffer(strategy: str) -> None:
    stage = context(strategy, settings={"trial_epochs": 1})
    make = {"random": Random, "evolution": Evolution, "rl_trials": RLTrials}[strategy]
    before = copy.deepcopy(stage.net.state_dict())
    make().update(stage)
    assert all(torch.equal(v, before[n]) for n, v in stage.net.state_dict().items())


# The rules of each


def test_random_does_not_score_a_network_twice_while_there_are_others() -> None:
    state, _ = searched(settings(strategy="random", alpha_every=1, epochs=3), part=1.0)
    assert len({t.path for t in state.trials}) == len(state.trials) == 12


def test_evolution_begins_with_random_networks() -> None:
    old = [trial((0, 0, 0), 0.9)] * 2
    begun = {"settings": {"population": 3, "tournament": 2}, "trials": old}
    result = [Evolution().update(context("evolution", number=n, **begun)).trial for n in range(15)]
    apart = [sum(c != 0 for c in item.path) for item in result if item is not None]
    assert max(apart) > 1  # not children of existing networks


@pytest.mark.slow
def test_evolution_changes_the_best_of_the_living() -> None:
    goal = goal_at(1.0)
    good, dead = (1, 1, 1), (2, 2, 2)
    trials = [trial(dead, 0.99), *(trial((0, 0, j), 0.1) for j in range(3)), trial(good, 0.8)]
    for number in range(20):
        stage = context(
            "evolution",
            settings={"population": 4, "tournament": 4},
            trials=trials,
            goal=goal,
            number=number,
        )
        child = Evolution().update(stage).trial
        assert child is not None
        assert sum(a != b for a, b in zip(child.path, good, strict=True)) == 1


def test_a_trial_trains_a_network_alone_and_moves_the_controller() -> None:
    stage = context("rl_trials", settings={"trial_epochs": 1}, baseline=0.0)
    result = RLTrials().update(stage)
    assert result.trial is not None
    assert result.grads is not None
    ratio = stage.goal.budget_ms / result.trial.latency_ms
    assert result.reward == pytest.approx(result.trial.accuracy * ratio**0.07)
    for grad, p, choice in zip(result.grads, stage.net.probs(), result.trial.path, strict=True):
        expected = result.reward * (p - torch.eye(3)[choice])
        torch.testing.assert_close(grad, expected)


@pytest.mark.slow
def test_a_controller_comes_to_prefer_what_is_rewarded() -> None:
    chosen = settings(
        strategy="rl_trials", objective="power", beta=3.0, trial_epochs=1, epochs=29, alpha_lr=0.3
    )
    state = start_search(SPACE, chosen, 0, CPU)
    goal = goal_at(0.5)
    before = float(goal.expected_ms(state.supernet.probs()))
    list(search_epochs(state, data(), goal, chosen, 0, SingleProcess()))
    assert len(state.trials) == 30
    assert float(goal.expected_ms(state.supernet.probs())) < before  # latency dominates this reward


# The search around them


def test_weights_stay_as_the_warm_up_left_them_while_networks_are_compared() -> None:
    chosen = settings(strategy="random")
    state = start_search(SPACE, chosen, 0, CPU)
    epochs = search_epochs(state, data(), goal_at(0.5), chosen, 0, SingleProcess())
    next(epochs)
    before = copy.deepcopy(state.supernet.state_dict())
    reports = list(epochs)
    assert all(torch.equal(v, before[n]) for n, v in state.supernet.state_dict().items())
    assert [r.phase for r in reports] == ["compare"] * 3


def test_an_epoch_of_comparing_reports_the_best_network_so_far() -> None:
    state, reports = searched(settings(strategy="evolution", population=2, tournament=2))
    best = max(state.trials, key=lambda t: t.score)
    assert (reports[-1].top1, reports[-1].latency_ms) == (best.accuracy, best.latency_ms)


def test_an_epoch_of_comparing_in_which_no_turn_came_knows_no_accuracy() -> None:
    state, reports = searched(settings(strategy="random", alpha_every=8))  # 4 steps an epoch
    first, second, _ = reports[1:]
    assert isnan(first.top1)
    assert first.latency_ms == pytest.approx(
        float(goal_at(0.5).expected_ms(state.supernet.probs()))
    )
    assert second.top1 == state.trials[0].accuracy


def test_trials_take_all_passes_and_no_more() -> None:
    state, reports = searched(settings(strategy="rl_trials", trial_epochs=2, epochs=4))
    assert [(r.phase, r.epoch) for r in reports] == [("trial", 1), ("trial", 3)]
    assert len(state.trials) == 2


@pytest.mark.parametrize("strategy", ["random", "evolution"])
def test_the_best_network_that_was_scored_is_chosen(strategy: Any) -> None:
    chosen = settings(strategy=strategy, population=3, tournament=2)
    state, _ = searched(chosen)
    best = max(state.trials, key=lambda t: t.score)
    result = choose(state, TABLE, goal_at(0.5).budget_ms, chosen)
    assert tuple(result.path()) == best.path


def test_a_smaller_budget_chooses_among_the_networks_within_it() -> None:
    chosen = settings(strategy="random", alpha_every=1)
    state, _ = searched(chosen, part=1.0)
    budget_ms = sorted(t.latency_ms for t in state.trials)[3]
    assert TABLE.latency_ms(choose(state, TABLE, budget_ms, chosen)) <= budget_ms


def test_no_scored_network_within_the_budget_is_said() -> None:
    chosen = settings(strategy="random")
    state, _ = searched(chosen, part=1.0)
    with pytest.raises(BudgetError, match="none of the 6 networks that were scored is within"):
        choose(state, TABLE, TABLE.range_ms()[0] / 2, chosen)


def test_a_controller_that_tried_nothing_within_the_budget_names_its_most_probable() -> None:
    chosen = settings(strategy="rl_trials", trial_epochs=4)
    state, _ = searched(chosen)
    budget_ms = TABLE.range_ms()[0] + 1e-9
    assert choose(state, TABLE, budget_ms, chosen) == TABLE.fastest()
