"""Exact derivation: the most probable architectures within a latency budget.

    max  sum_i log p_i(op_i)    subject to    fixed + sum_i cost_i(op_i) <= budget

is a multiple-choice knapsack problem. It is solved by merging fronts of (latency, log-probability)
site by site, in floating point: there is no grid over the budget, so the solution is exact and
never exceeds it. (The published rule, the most probable op of every site, ignores the budget.) For
the k best, a partial choice is dropped once k others cost no more and are at least as probable (a
k-skyband; for k = 1 a Pareto front): any completion of it also completes those, with a result at
least as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappush, heapreplace

import torch
from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable


class BudgetError(ValueError):
    """No network of the space meets the budget."""


def best_within(log_probs: Sequence[Tensor], table: LatencyTable, budget_ms: float) -> Architecture:
    """The most probable architecture of `table.space` whose table latency is within the budget.

    Args:
        log_probs: per site, log-probability of each candidate op, shape (K,).
        table: latencies of the space.
        budget_ms: largest allowed latency, milliseconds.

    Raises:
        BudgetError: even the fastest network takes longer.
        ValueError: a log-probability is NaN, or all ops of a site have probability 0.
    """
    return k_best_within(log_probs, table, budget_ms, 1)[0]


def k_best_within(
    log_probs: Sequence[Tensor], table: LatencyTable, budget_ms: float, k: int
) -> list[Architecture]:
    """The `k` most probable architectures within the budget, most probable first.

    Ties are broken by latency, then by the order of ops in `site.ops`. The list is shorter than `k`
    if the budget, or ops of probability 0, leave fewer architectures.

    Args:
        log_probs: per site, log-probability of each candidate op, shape (K,).
        table: latencies of the space.
        budget_ms: largest allowed latency, milliseconds.
        k: number of architectures, at least 1.

    Raises:
        BudgetError: even the fastest network takes longer.
        ValueError: `k` is below 1, a log-probability is NaN, or all ops of a site have
            probability 0.
    """
    space = table.space
    for site, log_p in zip(space.sites, log_probs, strict=True):
        if log_p.isnan().any() or log_p.max() == -torch.inf:
            raise ValueError(
                f"log-probabilities of '{site.name}' are {log_p.tolist()}; "
                "expected numbers, one of them above -inf"
            )
    costs = [torch.tensor(row, dtype=torch.float64) for row in table.costs_ms(space)]
    values = [log_p.detach().cpu().double() for log_p in log_probs]
    paths = best_paths(values, costs, table.fixed_ms(space), budget_ms, k)
    if not paths:
        fastest, slowest = table.range_ms()
        raise BudgetError(
            f"no network within {budget_ms:g} ms on '{table.hardware}'; "
            f"networks of this space take from {fastest:.4g} to {slowest:.4g} ms there"
        )
    return [Architecture.from_path(space, path) for path in paths]


def best_paths(
    values: Sequence[Tensor], costs_ms: Sequence[Tensor], fixed_ms: float, budget_ms: float, k: int
) -> list[list[int]]:
    """The `k` choices per site with the largest sums of `values` whose cost is within the budget.

    Costs are added in the order of the sites, as `LatencyTable.latency_ms` does, so that a network
    that costs exactly the budget is within it. Costs may be negative. Values are added in the same
    order; choices whose values differ by less than the rounding error may come in either order.

    Raises:
        ValueError: `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected a whole number of 1 or more, e.g. 8")
    cost = torch.tensor([fixed_ms], dtype=torch.float64)
    value = torch.zeros(1, dtype=torch.float64)
    steps: list[tuple[Tensor, Tensor]] = []  # per site: index into the previous front, chosen op
    limits = _limits(costs_ms, fixed_ms, budget_ms)
    for site_values, site_costs, limit in zip(values, costs_ms, limits, strict=True):
        all_costs = (cost[:, None] + site_costs[None, :]).flatten()
        all_values = (value[:, None] + site_values[None, :]).flatten()
        survivors = _skyband(all_costs, all_values, limit, k)
        steps.append((survivors // len(site_costs), survivors % len(site_costs)))
        cost, value = all_costs[survivors], all_values[survivors]
    totals = zip((-value).tolist(), cost.tolist(), range(len(cost)), strict=True)
    best = sorted(total for total in totals if total[1] <= budget_ms)[:k]
    return [_walk_back(steps, index) for _, _, index in best]


def _limits(costs_ms: Sequence[Tensor], fixed_ms: float, budget_ms: float) -> list[float]:
    """Per site, the largest partial cost that can still be completed within the budget.

    The limits leave room for the rounding error of the largest sums; the budget itself is checked
    on complete choices.
    """
    room = 1e-12 * (abs(fixed_ms) + abs(budget_ms) + sum(float(c.abs().max()) for c in costs_ms))
    limits = [budget_ms + room]
    for site_costs in reversed(costs_ms[1:]):
        limits.append(limits[-1] - float(site_costs.min()))
    return limits[::-1]


def _skyband(costs: Tensor, values: Tensor, limit: float, k: int) -> Tensor:
    """Ascending indices of the points within the limit that fewer than `k` others dominate.

    A point dominates those that are neither cheaper nor more valuable; of equal points, the first
    dominates the others. Ascending indices keep partial choices in the order of their ops.
    """
    candidates = ((costs <= limit) & (values > -torch.inf)).nonzero().flatten()
    by_value = candidates[torch.sort(values[candidates], descending=True, stable=True).indices]
    order = by_value[torch.sort(costs[by_value], stable=True).indices]
    survivors: list[int] = []
    largest: list[float] = []  # a heap of the k largest values among the points so far
    for index, value in zip(order.tolist(), values[order].tolist(), strict=True):
        if len(largest) < k:
            heappush(largest, value)
        elif value > largest[0]:
            heapreplace(largest, value)
        else:
            continue
        survivors.append(index)
    return torch.tensor(sorted(survivors), dtype=torch.long)


def _walk_back(steps: list[tuple[Tensor, Tensor]], index: int) -> list[int]:
    path: list[int] = []
    for parents, choices in reversed(steps):
        path.append(int(choices[index]))
        index = int(parents[index])
    return path[::-1]
