"""The k best networks within a budget, compared with brute force over all networks."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.derive import BudgetError, best_paths, best_within, k_best_within
from nas_core.latency import LatencyTable
from nas_core.space import SearchSpace, proxyless_imagenet
from tests.support.knapsacks import (
    Problem,
    exact_problems,
    log_probs,
    offsets_table,
    pixel1_table,
    problems,
    totals,
)
from tests.support.tiny import K3, K5, K7, all_architectures, noisy_table, two_sites

BUDGETS = st.floats(-10, 450)


def solve(problem: Problem, budget: float, k: int) -> list[tuple[int, ...]]:
    values, costs = ([torch.tensor(row, dtype=torch.float64) for row in x] for x in problem[:2])
    return [tuple(path) for path in best_paths(values, costs, problem[2], budget, k)]


def ranked(problem: Problem, budget: float) -> list[tuple[float, float, tuple[int, ...]]]:
    """(-value, cost, path) of all paths within the budget, in the documented order."""
    within = [(-value, cost, path) for path, (cost, value) in totals(problem).items()]
    return sorted(item for item in within if item[1] <= budget)


@given(problems(), BUDGETS, st.integers(1, 40))
@settings(max_examples=80)
def test_the_k_best_are_worth_what_those_of_brute_force_are(
    problem: Problem, budget: float, k: int
) -> None:
    known, result = totals(problem), solve(problem, budget, k)
    assert [known[path][1] for path in result] == [-item[0] for item in ranked(problem, budget)][:k]


@given(problems(), BUDGETS, st.integers(1, 40))
@settings(max_examples=50)
def test_the_k_best_are_different_and_within_the_budget(
    problem: Problem, budget: float, k: int
) -> None:
    known, result = totals(problem), solve(problem, budget, k)
    assert len(set(result)) == len(result)
    assert all(known[path][0] <= budget for path in result)


@given(exact_problems(), st.integers(-16, 16), st.integers(1, 40))
@settings(max_examples=80)
def test_ties_go_to_the_faster_then_to_the_earlier_ops(
    problem: Problem, budget: int, k: int
) -> None:
    expected = [path for _, _, path in ranked(problem, budget / 4)][:k]
    assert solve(problem, budget / 4, k) == expected


@pytest.mark.parametrize("table_of_space", [noisy_table, offsets_table])
@pytest.mark.parametrize("seed", range(3))
def test_the_k_best_networks_of_a_table_are_those_of_all_networks(
    table_of_space: Callable[[SearchSpace, int], LatencyTable], seed: int
) -> None:
    space = two_sites((K3, K5, K7, "skip"), sites=3)
    table, values = table_of_space(space, seed), log_probs(space, seed)
    latency = {arch: table.latency_ms(arch) for arch in all_architectures(space)}
    probability = {
        arch: sum(float(v[i]) for v, i in zip(values, arch.path(), strict=True)) for arch in latency
    }
    for budget in sorted(latency.values())[::7]:
        within = [arch for arch in latency if latency[arch] <= budget]
        expected = sorted(within, key=lambda arch: -probability[arch])[:10]
        assert k_best_within(values, table, budget, 10) == expected


def test_a_space_of_fewer_networks_gives_all_of_them() -> None:
    space = two_sites((K3, K7))
    result = k_best_within(log_probs(space, 0), noisy_table(space, 0), 100.0, 9)
    assert set(result) == set(all_architectures(space))


def test_an_op_of_probability_0_is_in_none_of_them() -> None:
    space = two_sites((K3, K5, K7))
    values = [torch.tensor([0.5, 0.5, 0.0]).log() for _ in space.sites]
    result = k_best_within(values, noisy_table(space, 0), 100.0, 9)
    assert len(result) == 4
    assert not any(K7 in arch.ops for arch in result)


def test_the_first_of_the_k_best_is_the_best() -> None:
    table = noisy_table(proxyless_imagenet(), seed=0)
    values, budget = log_probs(table.space, 1), sum(table.range_ms()) / 2
    assert k_best_within(values, table, budget, 32)[0] == best_within(values, table, budget)


def test_fewer_than_one_network_is_refused() -> None:
    space = two_sites((K3, K7))
    with pytest.raises(ValueError, match=r"k is 0; expected a whole number of 1 or more"):
        k_best_within(log_probs(space, 0), noisy_table(space, 0), 100.0, 0)


def test_no_network_within_the_budget_is_an_error_and_not_an_empty_list() -> None:
    space = two_sites((K3, K7))
    with pytest.raises(BudgetError, match=r"no network within 0\.01 ms"):
        k_best_within(log_probs(space, 0), noisy_table(space, 0), 0.01, 5)


@pytest.mark.parametrize("table_of_space", [noisy_table, offsets_table, pixel1_table])
def test_32_networks_of_the_published_space_are_found_within_a_second(
    table_of_space: Callable[[SearchSpace, int], LatencyTable],
) -> None:
    table = table_of_space(proxyless_imagenet(), 0)
    values, budget = log_probs(table.space, 1), sum(table.range_ms()) / 2
    start = time.process_time()
    result = k_best_within(values, table, budget, 32)
    assert time.process_time() - start < 1.0
    assert len(result) == 32
