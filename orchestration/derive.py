"""Stage: from op probabilities to a network that was measured within its budget.

The derivation is exact on the table; then the whole network is measured on the target. If it misses
the budget, the table is scaled to pass through it, and derivation runs again, at most twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.derive import BudgetError, best_within
from nas_core.latency import LatencyTable
from orchestration.case import Crew, Derived
from orchestration.measure import measure_networks

CORRECTIONS = 2


def tolerance(budget_ms: float) -> float:
    """How far over the budget a measurement may lie: 2 %, 5 % below a millisecond."""
    return 0.05 if budget_ms < 1 else 0.02


def derive(
    crew: Crew, log_probs: list[Tensor], history: list[dict[str, Any]], alphas: list[str]
) -> Derived:
    """The best network within the budget of the case, measured on its target."""
    budget_ms = crew.work.case.budget_ms
    assert budget_ms is not None, "a searched case has a budget"

    def measure(architecture: Architecture) -> tuple[float, float]:
        timing = measure_networks([architecture], crew.target, crew.work.job.measure)[0]
        return timing.median_ms, timing.spread

    found = derive_measured(log_probs, crew.work.table, budget_ms, measure)
    return replace(found, history=history, alphas=alphas)


def derive_measured(
    log_probs: Sequence[Tensor],
    table: LatencyTable,
    budget_ms: float,
    measure: Callable[[Architecture], tuple[float, float]],
) -> Derived:
    """Derive, measure and correct.

    Args:
        log_probs: per site, log-probability of each candidate op.
        table: latencies of the space on the target.
        budget_ms: largest latency allowed.
        measure: latency of a whole network, milliseconds, and its spread.

    Returns:
        The last network derived, with all tries: if even the corrected table missed, or nothing
        fits by it any more, `measured_ms` says by how much.
    """
    tries: list[dict[str, float]] = []
    while True:
        architecture = best_within(log_probs, table, budget_ms)
        measured_ms, spread = measure(architecture)
        table_ms = table.latency_ms(architecture)
        tries.append({"table_ms": table_ms, "measured_ms": measured_ms})
        derived = Derived(architecture, table_ms, measured_ms, spread, tries, [], [])
        is_within = measured_ms <= budget_ms * (1 + tolerance(budget_ms))
        if is_within or len(tries) > CORRECTIONS:
            return derived
        table = table.through(architecture, measured_ms)
        try:
            best_within(log_probs, table, budget_ms)
        except BudgetError:
            return derived
