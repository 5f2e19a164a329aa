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
from orchestration.measure import Measured, measure_network
from orchestration.plan import tolerance

CORRECTIONS = 2


def derive(
    crew: Crew, log_probs: list[Tensor], history: list[dict[str, Any]], alphas: list[str]
) -> Derived:
    """The best network within the budget of the case, measured on its target."""
    budget_ms = crew.work.case.budget_ms
    assert budget_ms is not None, "a searched case has a budget"

    table, settings = crew.work.table, crew.work.job.measure
    found = derive_measured(
        log_probs,
        table,
        budget_ms,
        lambda architecture: measure_network(architecture, table, crew.target, settings),
    )
    return replace(found, history=history, alphas=alphas)


def derive_measured(
    log_probs: Sequence[Tensor],
    table: LatencyTable,
    budget_ms: float,
    measure: Callable[[Architecture], Measured],
) -> Derived:
    """Derive, measure and correct.

    Args:
        log_probs: per site, log-probability of each candidate op.
        table: latencies of the space on the target.
        budget_ms: largest latency allowed.
        measure: latency of a whole network.

    Returns:
        The last network derived, with all tries: if even the corrected table missed, or nothing
        fits by it any more, `measured_ms` says by how much.
    """
    tries: list[dict[str, float]] = []
    while True:
        architecture = best_within(log_probs, table, budget_ms)
        measured, table_ms = measure(architecture), table.latency_ms(architecture)
        tries.append({"table_ms": table_ms, "measured_ms": measured.ms, "drift": measured.drift})
        derived = Derived(architecture, table_ms, measured.ms, measured.spread, tries, [], [])
        is_within = measured.ms <= budget_ms * (1 + tolerance(budget_ms))
        if is_within or len(tries) > CORRECTIONS:
            return derived
        table = table.through(architecture, measured.ms)
        try:
            best_within(log_probs, table, budget_ms)
        except BudgetError:
            return derived
