"""Budgets are hit: the latency of the Pixel 1, a loss that gains from every multiply-accumulate.

How much it gains, c, is what a fixed penalty would have to be tuned to. 2,500 updates.
"""

from __future__ import annotations

import pytest

from tests.nas_core.synthetic import search_of_alphas


@pytest.mark.slow
@pytest.mark.parametrize("c", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("budget_ms", [75.0, 85.0, 100.0, 120.0, 150.0])
def test_learnt_ends_within_2_percent_of_the_budget_without_tuning(
    budget_ms: float, c: float
) -> None:
    ended_ms, note = search_of_alphas(c, budget_ms, "learnt")
    assert ended_ms == pytest.approx(budget_ms, rel=0.02)
    assert note is None


@pytest.mark.slow
@pytest.mark.parametrize("budget_ms", [75.0, 85.0, 100.0, 120.0, 150.0])
def test_absolute_holds_a_budget_where_the_loss_gains_little(budget_ms: float) -> None:
    ended_ms, note = search_of_alphas(0.1, budget_ms, "absolute")
    assert ended_ms == pytest.approx(budget_ms, rel=0.02)
    assert note is None


@pytest.mark.slow
@pytest.mark.parametrize("c", [0.5, 2.0])
@pytest.mark.parametrize("budget_ms", [75.0, 85.0, 100.0, 120.0, 150.0])
def test_absolute_reports_a_penalty_too_weak_where_the_loss_gains_more(
    budget_ms: float, c: float
) -> None:
    ended_ms, note = search_of_alphas(c, budget_ms, "absolute")
    assert ended_ms > 1.1 * budget_ms
    assert note is not None
    assert "the penalty was too weak" in note
