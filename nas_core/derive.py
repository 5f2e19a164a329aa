"""The best architecture within a latency budget, exactly.

    max  sum_i log p_i(op_i)    subject to    fixed + sum_i cost_i(op_i) <= budget

is a multiple-choice knapsack. It is solved by merging Pareto fronts of (latency, log-probability)
site by site, in floats: no grid over the budget, so the answer is exact and never over it. (The
most probable op of every site, as published, breaks the budget.)
"""

from __future__ import annotations

from collections.abc import Sequence

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
        budget_ms: largest latency allowed, milliseconds.

    Raises:
        BudgetError: even the fastest network takes longer.
        ValueError: a log-probability is not a number, or no op of a site is possible.
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
    path = best_path(values, costs, table.fixed_ms(space), budget_ms)
    if path is None:
        fastest, slowest = table.range_ms()
        raise BudgetError(
            f"no network within {budget_ms:g} ms on '{table.hardware}'; "
            f"networks of this space take from {fastest:.4g} to {slowest:.4g} ms there"
        )
    return Architecture.from_path(space, path)


def best_path(
    values: Sequence[Tensor], costs_ms: Sequence[Tensor], fixed_ms: float, budget_ms: float
) -> list[int] | None:
    """Choice per site with the largest sum of `values` whose cost is within the budget.

    Costs are added in the order of the sites, as `LatencyTable.latency_ms` does, so that a network
    that costs exactly the budget is within it. None if there is no such choice.
    """
    remaining = _cheapest_rest(costs_ms)
    cost = torch.tensor([fixed_ms], dtype=torch.float64)
    value = torch.zeros(1, dtype=torch.float64)
    steps: list[tuple[Tensor, Tensor]] = []  # per site: index into the front before, chosen op
    for site_values, site_costs, rest in zip(values, costs_ms, remaining, strict=True):
        all_costs = (cost[:, None] + site_costs[None, :]).flatten()
        all_values = (value[:, None] + site_values[None, :]).flatten()
        kept = _pareto(all_costs, all_values, limit=budget_ms - rest)
        steps.append((kept // len(site_costs), kept % len(site_costs)))
        cost, value = all_costs[kept], all_values[kept]
    within = (cost <= budget_ms).nonzero().flatten()
    if len(within) == 0:
        return None
    return _walk_back(steps, int(within[-1]))


def _cheapest_rest(costs_ms: Sequence[Tensor]) -> list[float]:
    """Per site, the least that all later sites cost together."""
    rest = [0.0]
    for site_costs in reversed(costs_ms[1:]):
        rest.append(rest[-1] + float(site_costs.min()))
    return rest[::-1]


def _pareto(costs: Tensor, values: Tensor, limit: float) -> Tensor:
    """Indices of points that no cheaper point equals or beats, by rising cost and value.

    Points over `limit` (with room for rounding) cannot be completed within the budget.
    """
    candidates = (costs <= limit + 1e-9 * max(1.0, abs(limit))).nonzero().flatten()
    by_value = candidates[torch.sort(values[candidates], descending=True, stable=True).indices]
    order = by_value[torch.sort(costs[by_value], stable=True).indices]
    sorted_values = values[order]
    best_before = (
        torch.cat([sorted_values.new_full((1,), -torch.inf), sorted_values.cummax(0).values[:-1]])
        if len(order)
        else sorted_values
    )
    return order[sorted_values > best_before]


def _walk_back(steps: list[tuple[Tensor, Tensor]], index: int) -> list[int]:
    path: list[int] = []
    for parents, choices in reversed(steps):
        path.append(int(choices[index]))
        index = int(parents[index])
    return path[::-1]
