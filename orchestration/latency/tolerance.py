"""Tolerance of a latency budget: 2 %, or 5 % below 1 ms."""

from __future__ import annotations


def tolerance(budget_ms: float) -> float:
    """Tolerance as a fraction of the budget: 0.02, or 0.05 below 1 ms."""
    return 0.05 if budget_ms < 1 else 0.02


def is_within(measured_ms: float, budget_ms: float) -> bool:
    """Whether a measurement is within its budget plus the tolerance."""
    return measured_ms <= budget_ms * (1 + tolerance(budget_ms))


def over_budget(measured_ms: float | None, budget_ms: float | None, tries: int) -> str | None:
    """Message about a network whose measurement exceeds its budget; None if it does not."""
    if measured_ms is None or budget_ms is None or is_within(measured_ms, budget_ms):
        return None
    return (
        f"measured {measured_ms:.4g} ms, {measured_ms / budget_ms - 1:.0%} over the budget of "
        f"{budget_ms:.4g} ms, after {tries} tries; measure the table again on a calm machine, or "
        "ask for a little less"
    )
