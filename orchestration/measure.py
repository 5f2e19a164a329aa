"""Stage: the latency table of a target, and the latency of whole networks on it.

Parts are lowered in parallel processes, then timed by one process in interleaved rounds; an empty
call is timed with them and taken off. The sum over parts leaves out what runs between them, so the
table is scaled to pass through the reference network, measured as a whole. Later measurements are
interleaved with that network, which tells how much faster or slower the machine has become.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from cluster.hardware import Target
from cluster.runtimes import runtime_of
from cluster.runtimes.timing import Timing
from cluster.storage import Storage
from nas_core.architecture import Architecture, Model
from nas_core.latency import LatencyTable, PartShape, Row, parts_of
from nas_core.settings import MeasureSettings
from nas_core.space import SearchSpace
from orchestration.compilers import Subject, lower, timed
from orchestration.latency_tables import store_table
from orchestration.plan import Plan

NOISY_SPREAD, NOISY_SHARE = 0.2, 0.1
"""A measurement is noisy if more than this share of its rows spreads over this."""


@dataclass(frozen=True)
class Measured:
    """Latency of a whole network, comparable with the table's."""

    ms: float
    """What the clock said, divided by `drift`."""
    spread: float
    """(largest - smallest median of a round) / median."""
    drift: float
    """Latency of the reference network in the same run, by that at the time of the table."""


def measure_table(
    plan: Plan, target: Target, storage: Storage, say: Callable[[str], None]
) -> LatencyTable:
    """Measure all parts of the space and its reference network; kept in storage."""
    parts = parts_of(plan.space)
    subjects: list[Subject] = [Architecture.reference(plan.space), *parts, None]
    began = time.monotonic()
    reference, *programs = lower(plan.space, target, subjects)
    lowered = time.monotonic()
    settings = plan.job.measure
    timings = _calm(lambda: timed(programs, target, settings, settings.rounds))
    whole = timed([reference, programs[-1]], target, settings, settings.network_rounds)
    table = _table(plan.space, target, parts, timings, _without(whole[0], whole[1].median_ms))
    store_table(storage, plan.table_keys[target.name], table)
    say(_summary(table, lowered - began, time.monotonic() - lowered))
    return table


def _calm(measure: Callable[[], list[Timing]]) -> list[Timing]:
    """Timings; taken again, once, if the machine was noisy, and then the calmer ones."""
    first = measure()
    noisy = sum(timing.spread > NOISY_SPREAD for timing in first)
    if noisy <= NOISY_SHARE * len(first):
        return first
    return min(first, measure(), key=lambda timings: median(t.spread for t in timings))


def measure_network(
    model: Model, table: LatencyTable, target: Target, settings: MeasureSettings
) -> Measured:
    """Time a whole network against the reference network, the empty call taken off."""
    subjects: list[Subject] = [model, Architecture.reference(table.space), None]
    programs = lower(table.space, target, subjects)
    network, reference, empty = timed(programs, target, settings, settings.network_rounds)
    found, then = _without(network, empty.median_ms), table.reference_ms
    assert then is not None, "the measure stage measures the reference network"
    drift = _without(reference, empty.median_ms).median_ms / then
    return Measured(found.median_ms / drift, found.spread, drift)


def _table(
    space: SearchSpace,
    target: Target,
    parts: Sequence[PartShape],
    timings: Sequence[Timing],
    reference: Timing,
) -> LatencyTable:
    *rows, empty = timings
    table = LatencyTable(
        target=target.name,
        hardware=target.hardware(),
        runtime=target.runtime,
        runtime_version=runtime_of(target).version(),
        space=space,
        rows=tuple(_row(p, t, empty.median_ms) for p, t in zip(parts, rows, strict=True)),
        overhead_ms=empty.median_ms,
        reference_ms=reference.median_ms,
        reference_spread=reference.spread,
    )
    return table.through(Architecture.reference(space), reference.median_ms)


def _row(part: PartShape, timing: Timing, overhead_ms: float) -> Row:
    timing = _without(timing, overhead_ms)
    return Row(
        part=part,
        median_ms=timing.median_ms,
        p10_ms=timing.p10_ms,
        p90_ms=timing.p90_ms,
        spread=timing.spread,
        count=timing.count,
    )


def _without(timing: Timing, overhead_ms: float) -> Timing:
    """The timing less the empty call; no part takes less than nothing."""
    return replace(
        timing,
        median_ms=max(0.0, timing.median_ms - overhead_ms),
        p10_ms=max(0.0, timing.p10_ms - overhead_ms),
        p90_ms=max(0.0, timing.p90_ms - overhead_ms),
    )


def _summary(table: LatencyTable, lower_s: float, time_s: float) -> str:
    spreads = sorted(row.spread for row in table.rows)
    fastest, slowest = table.range_ms()
    return (
        f"{len(table.rows)} parts on {table.hardware}: lowered in {lower_s:.0f} s, "
        f"timed in {time_s:.0f} s, median spread {spreads[len(spreads) // 2]:.1%}; "
        f"networks take {fastest:.4g} to {slowest:.4g} ms, the reference "
        f"{table.reference_ms:.4g} ms, {table.scale:.3f} times the sum of its parts"
    )
