"""Latency budgets: in milliseconds, whether a network can keep them, and whether one did."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable
from nas_core.search_settings import SearchSettings
from orchestration.config.loading import SpecError

DEFAULT_BUDGETS = ("60%", "80%", "100%", "125%", "160%")
"""Where a job names none: of the reference network's latency, so that they suit every device."""


NETWORKS = 2000
"""Drawn to tell how a space lies to a budget."""


@dataclass(frozen=True)
class LatencyRange:
    """Latencies of the networks of a space on a target, milliseconds."""

    fastest: float
    median: float
    slowest: float
    within: float
    """Part of the networks that keep the budget."""

    def text(self) -> str:
        """For people."""
        share = f"{self.within:.0%}" if self.within >= 0.01 else "under 1%"
        return (
            f"{share} of networks keep it (fastest {self.fastest:.4g}, median {self.median:.4g}, "
            f"slowest {self.slowest:.4g} ms)"
        )


def span_of(table: LatencyTable, budget_ms: float) -> LatencyRange:
    """How the networks of a space lie to a budget; median and part of evenly drawn ones."""
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
    """Those of a target whose entry names none: what is beyond the space is clipped to its end."""
    fastest, slowest = table.range_ms()
    found: dict[float, str | float] = {}
    for budget in DEFAULT_BUDGETS:
        asked = budget_in_ms(budget, table)
        budget_ms = min(max(asked, fastest), slowest)
        found.setdefault(budget_ms, budget if budget_ms == asked else budget_ms)
    return tuple(found.values())


def budget_in_ms(budget: str | float, table: LatencyTable) -> float:
    """Milliseconds, from milliseconds or from a percentage of the reference network's latency."""
    if isinstance(budget, str):
        assert table.reference_ms is not None, "the measure stage measures the reference network"
        return float(budget.strip().removesuffix("%")) / 100 * table.reference_ms
    return float(budget)


def middle_budget(budgets_ms: list[float]) -> float:
    """The middle one, which a search that all of them share is run against; the smaller of two."""
    return sorted(budgets_ms)[(len(budgets_ms) - 1) // 2]


def check_feasible(place: str, budget: str | float, budget_ms: float, table: LatencyTable) -> None:
    """Raise SpecError unless the fastest network keeps the budget and the slowest does not beat it;
    it names both ends, and the nearest budget that can be kept."""
    fastest, slowest = table.range_ms()
    if fastest <= budget_ms <= slowest:
        return
    asked = f"{budget} = {budget_ms:.4g} ms" if isinstance(budget, str) else f"{budget_ms:g} ms"
    reference = table.reference_ms or table.latency_ms(Architecture.reference(table.space))
    nearest = f"{_up(fastest):g}" if budget_ms < fastest else f"{_down(slowest):g}"
    raise SpecError(
        f"{place} is {asked}; networks of '{table.space.name}' take from {fastest:.4g} to "
        f"{slowest:.4g} ms on '{table.hardware}' ({fastest / reference:.0%} to "
        f"{slowest / reference:.0%} of the reference network); name a budget between them, the "
        f"nearest is {nearest}"
    )


def _up(value: float) -> float:
    """Four digits, not below the value."""
    rounded = float(f"{value:.4g}")
    return rounded if rounded >= value else float(f"{value * 1.0006:.4g}")


def _down(value: float) -> float:
    """Four digits, not above the value."""
    rounded = float(f"{value:.4g}")
    return rounded if rounded <= value else float(f"{value / 1.0006:.4g}")


def check_objective(
    place: str, settings: SearchSettings, budget_ms: float, table: LatencyTable
) -> None:
    """Raise SpecError if the objective is no number at this budget."""
    if settings.objective_name != "mul_log":  # the only one that is not for all latencies
        return
    from nas_core.objective import check_goal

    try:
        check_goal(settings, table.range_ms()[0], budget_ms)
    except ValueError as error:
        raise SpecError(f"{place}: {error}") from None
