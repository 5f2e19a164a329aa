"""Latency budgets: conversion to milliseconds, defaults, and checks of feasibility."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable
from nas_core.search_settings import SearchSettings
from orchestration.config.loading import SpecError

DEFAULT_BUDGETS = ("60%", "80%", "100%", "125%", "160%")
"""Default budgets, relative to the reference network, so that they suit every device."""


NETWORKS = 2000
"""Number of networks that are drawn to estimate the distribution of latencies."""


@dataclass(frozen=True)
class LatencyRange:
    """Latencies of the networks of a space on a target, milliseconds."""

    fastest: float
    median: float
    slowest: float
    within: float
    """Fraction of the networks that keep the budget."""

    def text(self) -> str:
        """Description for the plan."""
        share = f"{self.within:.0%}" if self.within >= 0.01 else "under 1%"
        return (
            f"{share} of networks keep it (fastest {self.fastest:.4g}, median {self.median:.4g}, "
            f"slowest {self.slowest:.4g} ms)"
        )


def span_of(table: LatencyTable, budget_ms: float) -> LatencyRange:
    """Distribution of latencies in a space relative to a budget.

    Median and fraction are estimated from networks with uniformly drawn ops.
    """
    costs, fixed_ms = table.costs_ms(table.space), table.fixed_ms(table.space)
    rng = Random(0)  # noqa: S311  # no secret
    drawn = sorted(
        sum((row[rng.randrange(len(row))] for row in costs), start=fixed_ms)
        for _ in range(NETWORKS)
    )
    fastest, slowest = table.range_ms()
    within = sum(ms <= budget_ms for ms in drawn) / NETWORKS
    return LatencyRange(fastest, drawn[NETWORKS // 2], slowest, within)


def default_budgets(table: LatencyTable) -> tuple[str | float, ...]:
    """Default budgets of a target, clipped to the latency range of the space."""
    fastest, slowest = table.range_ms()
    budgets: dict[float, str | float] = {}
    for budget in DEFAULT_BUDGETS:
        asked = budget_in_ms(budget, table)
        budget_ms = min(max(asked, fastest), slowest)
        budgets.setdefault(budget_ms, budget if budget_ms == asked else budget_ms)
    return tuple(budgets.values())


def budget_in_ms(budget: str | float, table: LatencyTable) -> float:
    """Budget in milliseconds, given in milliseconds or as a percentage of the reference network."""
    if isinstance(budget, str):
        assert table.reference_ms is not None, "the measure stage measures the reference network"
        return float(budget.strip().removesuffix("%")) / 100 * table.reference_ms
    return float(budget)


def middle_budget(budgets_ms: list[float]) -> float:
    """Median budget, against which a shared search runs; the smaller of the two middle ones."""
    return sorted(budgets_ms)[(len(budgets_ms) - 1) // 2]


def check_feasible(
    setting: str, budget: str | float, budget_ms: float, table: LatencyTable
) -> None:
    """Check that a budget is within the latency range of the space, or that of the reference.

    Raises:
        SpecError: it is not. The message has the range and the nearest feasible budget.
    """
    fastest, slowest = table.range_ms()
    # Measured, the reference network may be slower than all networks are by the fitted table.
    if fastest <= budget_ms <= max(slowest, table.reference_ms or 0.0):
        return
    asked = f"{budget} = {budget_ms:.4g} ms" if isinstance(budget, str) else f"{budget_ms:g} ms"
    reference = table.reference_ms or table.latency_ms(Architecture.reference(table.space))
    nearest = f"{_up(fastest):g}" if budget_ms < fastest else f"{_down(slowest):g}"
    raise SpecError(
        f"{setting} is {asked}; networks of '{table.space.name}' take from {fastest:.4g} to "
        f"{slowest:.4g} ms on '{table.hardware}' ({fastest / reference:.0%} to "
        f"{slowest / reference:.0%} of the reference network); name a budget between them, the "
        f"nearest is {nearest}"
    )


def _up(value: float) -> float:
    """Value rounded up to four digits."""
    rounded = float(f"{value:.4g}")
    return rounded if rounded >= value else float(f"{value * 1.0006:.4g}")


def _down(value: float) -> float:
    """Value rounded down to four digits."""
    rounded = float(f"{value:.4g}")
    return rounded if rounded <= value else float(f"{value / 1.0006:.4g}")


def check_objective(
    setting: str, settings: SearchSettings, budget_ms: float, table: LatencyTable
) -> None:
    """Raise SpecError if the objective is not finite at this budget."""
    if settings.objective_name != "mul_log":  # all others are defined for all latencies
        return
    from nas_core.objective import check_goal

    try:
        check_goal(settings, table.range_ms()[0], budget_ms)
    except ValueError as error:
        raise SpecError(f"{setting}: {error}") from None
