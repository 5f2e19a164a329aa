"""Searches end at the budget, in a synthetic setting.

Latencies are those of the Pixel 1, and the loss decreases with every multiply-accumulate. Its
slope, c, is what a fixed penalty would have to be tuned to. Searches have 2,500 updates.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from nas_core.architecture import Architecture, count_macs
from nas_core.latency import LatencyTable, OpSignature
from nas_core.ops import build_op
from nas_core.shapes import OpShape
from nas_core.space import proxyless_small
from tests.support.synthetic_search import search_of_alphas
from tests.support.tiny import table_of


def parameters(every: list[tuple[float, float]], always: list[tuple[float, float]]) -> list[Any]:
    """Parameters of tests of half a minute each; some are run by `make test-long` only."""
    return [pytest.param(*item, marks=() if item in always else pytest.mark.long) for item in every]


BUDGETS_MS = (75.0, 100.0, 150.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget_ms", "c"),
    parameters(
        list(product(BUDGETS_MS, (0.1, 0.5, 2.0))), [(75.0, 0.1), (100.0, 0.5), (150.0, 2.0)]
    ),
)
def test_learnt_ends_within_2_percent_of_the_budget_without_tuning(
    budget_ms: float, c: float
) -> None:
    ended_ms, note = search_of_alphas(c, budget_ms, "learnt")
    assert ended_ms == pytest.approx(budget_ms, rel=0.02)
    assert note is None


@pytest.mark.slow
@pytest.mark.parametrize("budget_ms", [75.0, 150.0])
def test_absolute_holds_a_budget_where_the_loss_gains_little(budget_ms: float) -> None:
    ended_ms, note = search_of_alphas(0.1, budget_ms, "absolute")
    assert ended_ms == pytest.approx(budget_ms, rel=0.02)
    assert note is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget_ms", "c"),
    parameters(list(product((75.0, 150.0), (0.5, 2.0))), [(75.0, 2.0), (150.0, 0.5)]),
)
def test_absolute_reports_a_penalty_too_weak_where_the_loss_gains_more(
    budget_ms: float, c: float
) -> None:
    ended_ms, note = search_of_alphas(c, budget_ms, "absolute")
    assert ended_ms > 1.1 * budget_ms
    assert note is not None
    assert "the penalty was too weak" in note


def a_table_in_which_7x7_costs_30_times_as_much() -> LatencyTable:
    """Latencies like XNNPACK's: a search starts at several times that of the reference network."""

    def cost_ms(part: OpSignature) -> float:
        if part.op in ("stem", "head"):
            return 0.02
        shape = OpShape(part.in_channels, part.out_channels, part.stride)
        macs = count_macs(lambda: build_op(part.op, shape), part.in_channels, part.resolution)
        return macs / 1e8 * (30 if "k7" in part.op else 1)

    return table_of(proxyless_small(), cost_ms)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "c"),
    [
        *((0.6, 0.1), (1.2, 2.0)),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in ((0.6, 2.0), (0.8, 0.1), (0.8, 2.0), (1.2, 0.1))
        ),
    ],
)
def test_learnt_holds_a_budget_in_a_short_search_that_begins_far_from_it(
    share: float, c: float
) -> None:
    table = a_table_in_which_7x7_costs_30_times_as_much()
    budget_ms = share * table.latency_ms(Architecture.reference(table.space))
    ended_ms, note = search_of_alphas(c, budget_ms, "learnt", steps=102, table=table)
    assert ended_ms == pytest.approx(budget_ms, rel=0.05)
    assert note is None
