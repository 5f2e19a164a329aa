"""The network of a case, with its latency: searched, drawn, named by the job, or the reference.

What a search found is kept in storage, so that a case that is stopped in its retraining is not
searched again. The other networks take no time to find again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nas_core.architecture import Model
from orchestration.latency.network import Measured, measure_network
from orchestration.stages.context import WorkerContext
from orchestration.state.result import SearchFacts


@dataclass(frozen=True)
class Candidate:
    """A network with its latency, by the table and measured."""

    model: Model
    table_ms: float | None
    """None for what is no member of the space."""
    measured_ms: float | None
    """None on a target that is not measured; so is the spread."""
    measured_spread: float | None
    tries: list[dict[str, float | None]]
    """Every network that was measured to find this one."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Of the search; empty where there was none."""
    alphas: list[str] = field(default_factory=list)
    """Digest of the architecture parameters that each worker ended with; all equal."""
    search: SearchFacts = field(default_factory=SearchFacts)
    """What else the search says; goes into the result as it is."""


def tried(table_ms: float | None, measured: Measured | None) -> dict[str, float | None]:
    """One network that was measured, for `Candidate.tries`."""
    if measured is None:
        return {"table_ms": table_ms, "measured_ms": None, "drift": None}
    return {"table_ms": table_ms, "measured_ms": measured.ms, "drift": measured.drift}


def measured_together(
    context: WorkerContext, model: Model, budget_ms: float | None = None
) -> Measured | None:
    """Latency of a whole network, equal on all workers; None where nothing is measured.

    The first worker measures, the others wait for it; twice where a budget is missed.
    """
    if not context.target.is_measured:
        return None

    def measured() -> list[float]:
        settings = context.task.job.measure
        found = measure_network(model, context.table, context.target, settings, budget_ms)
        return [float(found.ms), float(found.spread), float(found.drift)]

    return Measured(*context.group.broadcast_from_first(measured))
