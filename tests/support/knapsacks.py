"""Random multiple-choice knapsack problems, and all their solutions. Independent of the code."""

from __future__ import annotations

from itertools import product

import torch
from hypothesis import strategies as st
from torch import Tensor

from nas_core.latency import LatencyTable
from nas_core.published import pixel1
from nas_core.space import SearchSpace
from tests.support.tiny import table_of

Numbers = st.SearchStrategy[float]
Problem = tuple[list[list[float]], list[list[float]], float]
"""Values and costs per site, and the fixed cost."""


def totals(problem: Problem) -> dict[tuple[int, ...], tuple[float, float]]:
    """Cost and value of every path, added up site by site."""
    values, costs, fixed = problem
    totals_by_path = {}
    for path in product(*(range(len(row)) for row in costs)):
        cost, value = fixed, 0.0
        for site, choice in enumerate(path):
            cost, value = cost + costs[site][choice], value + values[site][choice]
        totals_by_path[path] = (cost, value)
    return totals_by_path


def quarters(least: int, most: int) -> st.SearchStrategy[float]:
    """Multiples of a quarter, which floats add without rounding errors."""
    return st.integers(least, most).map(lambda n: n / 4)


@st.composite
def _problems(draw: st.DrawFn, value: Numbers, cost: Numbers, fixed: Numbers) -> Problem:
    cells = st.lists(st.tuples(value, cost), min_size=1, max_size=4)
    sites = draw(st.lists(cells, min_size=1, max_size=4))
    values = [[value for value, _ in site] for site in sites]
    return values, [[cost for _, cost in site] for site in sites], draw(fixed)


def problems() -> st.SearchStrategy[Problem]:
    """Problems with costs of either sign and ties: some values are quarters, some arbitrary."""
    cost = st.one_of(quarters(-4, 12), st.floats(-1, 100))
    return _problems(st.floats(-20, 0), cost, st.floats(-1, 10))


def exact_problems() -> st.SearchStrategy[Problem]:
    """Problems with quarters only: sums are exact, and many are equal."""
    return _problems(quarters(-8, 0), quarters(-4, 4), quarters(-4, 4))


def log_probs(space: SearchSpace, seed: int) -> list[Tensor]:
    """Random log-probabilities of the ops, one (K,) per site."""
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(len(site.ops), generator=rng).log_softmax(0) for site in space.sites]


def offsets_table(space: SearchSpace, seed: int) -> LatencyTable:
    """Linear model of a phone: a large constant, and offsets of which about half are negative."""
    rng = torch.Generator().manual_seed(seed)
    offset = {"stem": 92.0, "head": 0.0}
    return table_of(
        space, lambda part: offset.get(part.op, float(5 * torch.randn((), generator=rng)))
    )


def pixel1_table(space: SearchSpace, _seed: int) -> LatencyTable:
    """The published linear model: rows differ by site, half are negative; skips have rows too."""
    return pixel1.table(space)
