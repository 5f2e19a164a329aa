"""Stage: the latency table of a target, and the latency of whole networks on it.

    parts of the space -> rows -> whole networks -> a line through them -> how right it is

Parts are lowered in parallel processes and timed by one process, on a node that nothing else may
use meanwhile, in groups whose rounds are interleaved; an empty call is timed with each group and
taken off, and the stem is timed with each again: what it takes now over what it took first is taken
out of the group. Rows are kept as they come. The sum over parts leaves out what runs between them,
so a line is fitted to whole networks (`calibrate.py`). Later measurements are interleaved with the
reference network, which tells how much faster or slower the machine has become.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from cluster.hardware import Target
from cluster.placement import Node, cores_reserved, node_for, nodes
from cluster.runtimes import MeasurementError
from cluster.runtimes.throttling import check_throttling
from cluster.runtimes.timing import Timing
from cluster.storage import Storage
from nas_core.architecture import Architecture, Model
from nas_core.latency import LatencyTable, PartShape, Row, parts_of, stem_part
from nas_core.settings import MeasureSettings
from nas_core.space import SearchSpace
from orchestration.calibrate import Extent, calibrated
from orchestration.compilers import Subject, compilers_running, lower
from orchestration.latency_tables import store_table
from orchestration.processes import RuntimeDiedError
from orchestration.rows import RowStore
from orchestration.stopwatch import Program, target_facts, timed, version_there

NOISY_SPREAD, NOISY_SHARE = 0.2, 0.1
"""A table is noisy if more than this share of its rows spreads over this."""

GROUP = 12
"""Parts that are lowered, timed against each other, and kept, before the next ones."""

Progress = Callable[[int, int], None]
"""Told how many parts and networks are measured, of how many."""


@dataclass(frozen=True)
class Bench:
    """What is measured, how, and where."""

    space: SearchSpace
    target: Target
    settings: MeasureSettings
    node: Node

    def timed_with_empty(self, subjects: Sequence[Subject], rounds: int) -> list[Timing]:
        """Subjects timed against each other, call overhead included, the empty call behind them."""
        programs = lower(self.space, self.target, [*subjects, None])
        timings = timed(programs, self.target, self.settings, rounds, self.node)
        if self.target.device == "android":
            check_throttling(timings[:-1], self.target.name)  # a call alone is all noise
        return timings


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
    space: SearchSpace,
    target: Target,
    settings: MeasureSettings,
    storage: Storage,
    key: str,
    *,
    say: Callable[[str], None],
    extent: Extent | None = None,
    progress: Progress = lambda _done, _all: None,
) -> LatencyTable:
    """Measure all parts of a space and some whole networks; kept in storage.

    A measurement that was stopped goes on with what is missing.

    Args:
        space: whose parts.
        target: on what.
        settings: how.
        storage: holds the table, and its rows while they come.
        key: of the table.
        say: takes lines for a person.
        extent: which networks to calibrate with; as many as the settings allow where left out.
        progress: told how far it is.

    Raises:
        MeasurementError: the target cannot be measured, or is too noisy; rows so far are kept.
        PlacementError: no node has the target.
    """
    bench = Bench(space, target, settings, node_for(target, nodes()))
    extent = extent or Extent(seconds=settings.calibrate_s)
    store, began = RowStore(storage, key), time.monotonic()
    with compilers_running([bench.node]), cores_reserved(bench.node, say):
        version_there(target, bench.node)
        steps = _Steps(progress, len(parts_of(space)), extent.networks)
        rows = _rows(bench, store, steps, say)
        table = _table(bench, rows, store.overheads_ms)
        timed_rows = time.monotonic()
        table = calibrated(table, bench, extent, steps.networks_done)
    table.check()
    store_table(storage, key, table)
    store.clear()
    say(_summary(table, timed_rows - began, time.monotonic() - timed_rows))
    return table


class _Steps:
    """Counts parts, then networks."""

    def __init__(self, progress: Progress, parts: int, networks: int) -> None:
        self._progress, self._parts, self._networks = progress, parts, networks

    def parts_done(self, number: int) -> None:
        self._progress(number, self._parts + self._networks)

    def networks_done(self, number: int) -> None:
        self._progress(self._parts + number, self._parts + self._networks)


def _rows(
    bench: Bench, store: RowStore, steps: _Steps, say: Callable[[str], None]
) -> tuple[Row, ...]:
    """All rows, measured where they are missing, and once more where they are noisy."""
    parts = parts_of(bench.space)
    _measure_missing(bench, store, parts, steps)
    noisy = _noisy(store, parts)
    if len(noisy) > NOISY_SHARE * len(parts):
        say(f"{len(noisy)} of {len(parts)} parts spread over {NOISY_SPREAD:.0%}; once more")
        store.drop(noisy)
        _measure_missing(bench, store, parts, steps)
        noisy = _noisy(store, parts)
    if len(noisy) > NOISY_SHARE * len(parts) and not bench.settings.accept_noisy:
        store.drop(noisy)
        raise MeasurementError(
            f"{len(noisy)} of {len(parts)} parts on {bench.target.hardware()} spread over "
            f"{NOISY_SPREAD:.0%}, twice; expected {NOISY_SHARE:.0%} of them at most: let the "
            "machine do nothing else and try again (calm rows are kept), or set "
            "measure.accept_noisy: true"
        )
    if len(noisy) > NOISY_SHARE * len(parts):
        say(f"WARNING {len(noisy)} of them still do; kept, as measure.accept_noisy allows")
    return tuple(row for part in parts if (row := store.get(part)) is not None)


def _noisy(store: RowStore, parts: Sequence[PartShape]) -> list[Row]:
    rows = (store.get(part) for part in parts)
    return [row for row in rows if row is not None and row.spread > NOISY_SPREAD]


def _measure_missing(
    bench: Bench, store: RowStore, parts: Sequence[PartShape], steps: _Steps
) -> None:
    failed: list[str] = []
    for group in _groups(store.missing(parts)):
        failed += _measure_group(bench, store, group)
        steps.parts_done(len(parts) - len(store.missing(parts)))
    if failed:
        raise MeasurementError(
            f"{bench.target.runtime} dies when it runs {'; '.join(failed)}: leave these ops out of "
            f"the space (the other {len(parts) - len(failed)} rows are kept)"
        )


def _groups(parts: Sequence[PartShape]) -> Iterator[Sequence[PartShape]]:
    for first in range(0, len(parts), GROUP):
        yield parts[first : first + GROUP]


def _measure_group(bench: Bench, store: RowStore, parts: Sequence[PartShape]) -> list[str]:
    """Measure and keep some parts; those with which the runtime dies, in words."""
    try:
        store.add(*_group_rows(bench, store, parts))
    except RuntimeDiedError:
        if len(parts) == 1:
            return [_words(parts[0])]
        return [failed for part in parts for failed in _measure_group(bench, store, [part])]
    return []


def _group_rows(
    bench: Bench, store: RowStore, parts: Sequence[PartShape]
) -> tuple[list[Row], float]:
    """Rows of some parts, and the empty call that was taken off."""
    stem = stem_part(bench.space)
    settings = bench.settings
    anchor, *timings, empty = bench.timed_with_empty([stem, *parts], settings.rounds)
    known = store.get(stem)
    now_ms = anchor.without(empty.median_ms).median_ms
    drift = now_ms / known.median_ms if known is not None and known.median_ms > 0 else 1.0
    rows = [
        _row(part, timing.without(empty.median_ms), drift)
        for part, timing in zip(parts, timings, strict=True)
    ]
    return rows, empty.median_ms


def _row(part: PartShape, timing: Timing, drift: float) -> Row:
    return Row(
        part=part,
        median_ms=timing.median_ms / drift,
        p10_ms=timing.p10_ms / drift,
        p90_ms=timing.p90_ms / drift,
        spread=timing.spread,
        count=timing.count,
    )


def _words(part: PartShape) -> str:
    shape = f"{part.in_channels} to {part.out_channels} channels, stride {part.stride}"
    return f"'{part.op}' ({shape}, {part.resolution} pixels)"


def _table(bench: Bench, rows: tuple[Row, ...], overheads_ms: Sequence[float]) -> LatencyTable:
    target = bench.target
    return LatencyTable(
        target=target.name,
        hardware=target.hardware(),
        runtime=target.runtime,
        runtime_version=version_there(target, bench.node),
        space=bench.space,
        rows=rows,
        overhead_ms=median(overheads_ms),
        device={
            **target_facts(target, bench.node),
            "batch_size": target.batch_size,
            "threads": target.threads,
            "precision": target.precision,
        },
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def measure_network(
    model: Model, table: LatencyTable, target: Target, settings: MeasureSettings
) -> Measured:
    """Time a whole network against the reference network, the empty call taken off."""
    (program,) = lower(table.space, target, [model])
    return measure_program(program, table, target, settings)


def measure_program(
    program: Program, table: LatencyTable, target: Target, settings: MeasureSettings
) -> Measured:
    """The same for a network that is lowered or exported already."""
    beside = lower(table.space, target, [Architecture.reference(table.space), None])
    node = node_of(table, target)
    network, reference, empty = timed(
        [program, *beside], target, settings, settings.network_rounds, node
    )
    then = table.reference_ms
    assert then is not None, "the measure stage measures the reference network"
    drift = reference.without(empty.median_ms).median_ms / then
    return Measured(network.without(empty.median_ms).median_ms / drift, network.spread, drift)


def node_of(table: LatencyTable, target: Target) -> Node:
    """Where the table was measured, if that node is there; else one that has the target."""
    there = nodes()
    same = [node for node in there if node.host == table.device.get("host")]
    return node_for(target, [*same, *there])


def _summary(table: LatencyTable, rows_s: float, networks_s: float) -> str:
    spreads = sorted(row.spread for row in table.rows)
    fastest, slowest = table.range_ms()
    calibration = table.calibration
    assert calibration is not None, "a measured table is calibrated"
    errors = calibration.errors
    return (
        f"{len(table.rows)} parts on {table.hardware} in {rows_s:.0f} s, median spread "
        f"{spreads[len(spreads) // 2]:.1%}; networks take {fastest:.4g} to {slowest:.4g} ms, the "
        f"reference {table.reference_ms:.4g} ms\n"
        f"{table.scale:.3f} times the sum of the parts {table.offset_ms:+.3g} ms, fitted to "
        f"{len(calibration.fitted)} networks in {networks_s:.0f} s"
        + ("" if errors is None else f"; {errors.text()}")
    )
