"""The network of a case with its latency: searched, random, named by the job, or the reference."""

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
    """Latency by the table; None if the network is not a member of the space."""
    measured_ms: float | None
    """Measured latency; None, like the spread, on a target that is not measured."""
    measured_spread: float | None
    tries: list[dict[str, float | None]]
    """Latencies of every network that was measured on the way to this one."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Epoch reports of the search; empty without a search."""
    alphas: list[str] = field(default_factory=list)
    """Digests of the final architecture parameters of all workers, which are equal."""
    search: SearchFacts = field(default_factory=SearchFacts)
    """Further facts about the search, copied to the result."""


def tried(table_ms: float | None, measured: Measured | None) -> dict[str, float | None]:
    """Entry of `Candidate.tries` for one measured network."""
    if measured is None:
        return {"table_ms": table_ms, "measured_ms": None, "drift": None}
    return {"table_ms": table_ms, "measured_ms": measured.ms, "drift": measured.drift}


def measured_together(
    context: WorkerContext, model: Model, budget_ms: float | None = None
) -> Measured | None:
    """Latency of a whole network, equal on all workers; None if the target is not measured.

    The first worker measures while the others wait. It measures twice if a budget is missed.
    """
    if not context.target.is_measured:
        return None

    def measured() -> list[float]:
        settings = context.task.job.measure
        latency = measure_network(model, context.table, context.target, settings, budget_ms)
        return [float(latency.ms), float(latency.spread), float(latency.drift)]

    return Measured(*context.group.broadcast_from_first(measured))
