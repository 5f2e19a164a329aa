"""Measure the latency of a whole network on its target, together with the reference network."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.hardware import Target
from cluster.runtimes.throttling import check_throttling
from nas_core.architecture import Architecture, Model
from nas_core.latency import LatencyTable
from nas_core.settings import MeasureSettings
from orchestration.latency.device import node_of
from orchestration.latency.tolerance import is_within
from orchestration.programs.compile_workers import lower
from orchestration.programs.timing_workers import Program, timed


@dataclass(frozen=True)
class Measured:
    """Latency of a whole network, corrected for drift so that it is comparable with the table."""

    ms: float
    """Measured latency divided by `drift`, milliseconds."""
    spread: float
    """(largest - smallest median of a round) / median."""
    drift: float
    """Latency of the reference network in the same run, divided by that when the table was made."""


def measure_network(
    model: Model,
    table: LatencyTable,
    target: Target,
    settings: MeasureSettings,
    budget_ms: float | None = None,
) -> Measured:
    """Time a whole network; the empty call is subtracted.

    A network that misses `budget_ms` is timed once more, and the mean of both is returned, since
    other cases that train on the machine may have disturbed the first measurement.
    """
    (program,) = lower(table.space, target, [model])
    return measure_program(program, table, target, settings, budget_ms)


def measure_program(
    program: Program,
    table: LatencyTable,
    target: Target,
    settings: MeasureSettings,
    budget_ms: float | None = None,
) -> Measured:
    """Same as `measure_network`, for a network that is lowered or exported already."""
    first = _measured_once(program, table, target, settings)
    if budget_ms is None or is_within(first.ms, budget_ms):
        return first
    second = _measured_once(program, table, target, settings)
    return Measured(
        ms=(first.ms + second.ms) / 2,
        spread=max(first.spread, second.spread),
        drift=(first.drift + second.drift) / 2,
    )


def _measured_once(
    program: Program, table: LatencyTable, target: Target, settings: MeasureSettings
) -> Measured:
    others = lower(table.space, target, [Architecture.reference(table.space), None])
    node = node_of(table, target)
    timings = timed([program, *others], target, settings, settings.network_rounds, node)
    if target.device == "android":
        check_throttling(timings[:-1], target.name)
    network, reference, empty = timings
    then = table.reference_ms
    assert then is not None, "the measure stage measures the reference network"
    drift = reference.without(empty.median_ms).median_ms / then
    return Measured(network.without(empty.median_ms).median_ms / drift, network.spread, drift)
