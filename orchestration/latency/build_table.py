"""Measure the latency table of a target.

    parts of the space -> rows -> whole networks -> fitted line -> errors of the fit

Parts are lowered in parallel and timed by one process, on a node whose cores are reserved. Parts
are timed in groups, whose rounds are interleaved. Two more programs are timed with each group: an
empty call, which is subtracted, and the reference network, whose latency relative to the first
group is the drift of the machine, which is divided out. The ops of a site are in different groups,
so a disturbance of one group does not favour one op. Rows are stored after each group. The clock is
`time_calls` in `cluster/runtimes/timing.py`.

The sum over parts lacks the cost between them, so a line is fitted to whole networks
(`calibrate.py`). Later measurements include the reference network too, to correct for drift.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from statistics import median

from cluster.hardware import Target
from cluster.placement import cores_reserved, node_for, nodes
from cluster.runtimes.base import MeasurementError, ProgramError
from cluster.runtimes.throttling import MAX_RISE
from cluster.runtimes.timing import Timing
from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.latency import (
    NOISY_SHARE,
    NOISY_SPREAD,
    LatencyEntry,
    LatencyTable,
    OpSignature,
    is_noisy,
    noisy_entries,
    op_signatures,
)
from nas_core.settings import MeasureSettings
from nas_core.space import SearchSpace
from orchestration.latency.calibrate import CalibrationSize, calibrated
from orchestration.latency.device import identity, is_same_device
from orchestration.latency.measurement_setup import MeasurementSetup
from orchestration.latency.row_store import RowStore
from orchestration.latency.table_store import store_table
from orchestration.programs.compile_workers import compile_workers_running
from orchestration.programs.timing_workers import target_facts, version_there

GROUP = 12
"""Largest number of parts that are lowered and timed together and then stored."""

Progress = Callable[[int, int], None]
"""Called with the number of parts and networks measured so far, and their total."""


def measure_table(
    space: SearchSpace,
    target: Target,
    settings: MeasureSettings,
    storage: Storage,
    key: str,
    *,
    log: Callable[[str], None],
    extent: CalibrationSize | None = None,
    progress: Progress = lambda _done, _all: None,
    known: LatencyTable | None = None,
) -> LatencyTable:
    """Measure all parts of a space and some whole networks, and store the table.

    A measurement that was stopped is resumed.

    Args:
        space: search space whose parts are measured.
        target: target to measure on.
        settings: settings of the measurement.
        storage: storage of the table, and of its rows during the measurement.
        key: key of the table.
        log: receives lines of text.
        extent: networks to calibrate with. None: as many as `settings.calibrate_s` allows.
        progress: called after each group.
        known: a table whose rows are reused. Its networks are measured again.

    Raises:
        MeasurementError: the target cannot be measured or is too noisy. Rows so far are stored.
        PlacementError: no node has the target.
    """
    setup = MeasurementSetup(space, target, settings, node_for(target, nodes()))
    extent = extent or CalibrationSize(seconds=settings.calibrate_s)
    began = time.monotonic()
    with compile_workers_running([setup.node]), cores_reserved(setup.node, log):
        version = version_there(target, setup.node)
        facts = target_facts(target, setup.node)
        store = RowStore(storage, key, identity(facts))
        if known is not None and is_same_device(known, facts):
            store.take_over(known)
        steps = _Steps(progress, len(op_signatures(space)), extent.networks)
        rows = _rows(setup, store, steps, log)
        timed_rows = time.monotonic()
        try:
            table = _table(setup, rows, median(store.overheads_ms), version)
            table = calibrated(table, setup, extent, steps.networks_done)
            table.check()
        except ValueError as error:  # no line fits the times
            raise MeasurementError(f"{error} (all rows are kept)") from error
    store_table(storage, key, table)
    store.clear()
    log(_summary(table, timed_rows - began, time.monotonic() - timed_rows))
    return table


class _Steps:
    """Progress over parts, then over networks."""

    def __init__(self, progress: Progress, parts: int, networks: int) -> None:
        self._progress, self._parts, self._networks = progress, parts, networks

    def parts_done(self, number: int) -> None:
        self._progress(number, self._parts + self._networks)

    def networks_done(self, number: int) -> None:
        self._progress(self._parts + number, self._parts + self._networks)


def _rows(
    setup: MeasurementSetup, store: RowStore, steps: _Steps, log: Callable[[str], None]
) -> tuple[LatencyEntry, ...]:
    """Rows of all parts: measures missing ones, then noisy ones again."""
    parts = op_signatures(setup.space)
    _measure_missing(setup, store, parts, steps)
    noisy = noisy_entries(store.rows)
    if is_noisy(store.rows):
        log(f"{len(noisy)} of {len(parts)} parts spread over {NOISY_SPREAD:.0%}; once more")
        store.drop(noisy)
        _measure_missing(setup, store, parts, steps)
        noisy = noisy_entries(store.rows)
    if is_noisy(store.rows) and not setup.settings.accept_noisy:
        store.drop(noisy)
        raise MeasurementError(
            f"{len(noisy)} of {len(parts)} parts on {setup.target.hardware()} spread over "
            f"{NOISY_SPREAD:.0%}, twice; expected {NOISY_SHARE:.0%} of them at most: let the "
            "machine do nothing else and try again (calm rows are kept), or set "
            "measure.accept_noisy: true"
        )
    if is_noisy(store.rows):
        log(f"WARNING {len(noisy)} of them still do; kept, as measure.accept_noisy allows")
    return tuple(row for part in parts if (row := store.get(part)) is not None)


def _measure_missing(
    setup: MeasurementSetup, store: RowStore, parts: Sequence[OpSignature], steps: _Steps
) -> None:
    failed: list[str] = []
    for group in _groups(store.missing(parts)):
        failed += _measure_group(setup, store, group)
        steps.parts_done(len(parts) - len(store.missing(parts)))
    if failed:
        raise MeasurementError(
            f"{setup.target.runtime} fails with {'; '.join(failed)}: leave these ops out of "
            f"the space (the other {len(parts) - len(failed)} rows are kept)"
        )


def _groups(parts: Sequence[OpSignature]) -> Iterator[Sequence[OpSignature]]:
    count = -(-len(parts) // GROUP)
    for first in range(count):
        yield parts[first::count]


def _measure_group(
    setup: MeasurementSetup,
    store: RowStore,
    parts: Sequence[OpSignature],
    *,
    is_anchored: bool = True,
) -> list[str]:
    """Measure some parts and store their rows; descriptions of parts that the runtime fails on."""
    try:
        store.add(*_group_rows(setup, store, parts, is_anchored))
    except ProgramError as error:
        if len(parts) == 1 and is_anchored:  # the reference network may be what fails
            return _measure_group(setup, store, parts, is_anchored=False)
        if len(parts) == 1:
            return [f"{_description(parts[0])}: {error}"]
        return [failed for part in parts for failed in _measure_group(setup, store, [part])]
    return []


def _group_rows(
    setup: MeasurementSetup, store: RowStore, parts: Sequence[OpSignature], is_anchored: bool
) -> tuple[list[LatencyEntry], float]:
    """Rows of some parts, and the latency of the empty call, which is subtracted."""
    anchors = [Architecture.reference(setup.space)] if is_anchored else []
    *timings, empty = setup.timed_with_empty([*anchors, *parts], setup.settings.rounds)
    if is_anchored:
        store.anchor(timings.pop(0).without(empty.median_ms).median_ms)
    drift = store.drift
    if setup.target.device == "android" and drift > MAX_RISE:
        raise MeasurementError(
            f"the phone throttles: the reference network takes {drift - 1:.0%} more than at the "
            f"beginning; let it cool down and try again (rows so far are kept), or raise "
            f"targets.{setup.target.name}.phone.cool_down_s"
        )
    rows = [
        _row(part, timing.without(empty.median_ms), drift)
        for part, timing in zip(parts, timings, strict=True)
    ]
    return rows, empty.median_ms


def _row(part: OpSignature, timing: Timing, drift: float) -> LatencyEntry:
    return LatencyEntry(
        part=part,
        median_ms=timing.median_ms / drift,
        p10_ms=timing.p10_ms / drift,
        p90_ms=timing.p90_ms / drift,
        spread=timing.spread,
        count=timing.count,
    )


def _description(part: OpSignature) -> str:
    shape = f"{part.in_channels} to {part.out_channels} channels, stride {part.stride}"
    return f"'{part.op}' ({shape}, {part.resolution} pixels)"


def _table(
    setup: MeasurementSetup, rows: tuple[LatencyEntry, ...], overhead_ms: float, version: str
) -> LatencyTable:
    target = setup.target
    return LatencyTable(
        target=target.name,
        hardware=target.hardware(),
        runtime=target.runtime,
        runtime_version=version,
        space=setup.space,
        rows=rows,
        overhead_ms=overhead_ms,
        device={
            **target_facts(target, setup.node),
            "batch_size": target.batch_size,
            "threads": target.threads,
            "precision": target.precision,
        },
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _summary(table: LatencyTable, rows_s: float, networks_s: float) -> str:
    spreads = sorted(row.spread for row in table.rows)
    calibration = table.calibration
    assert calibration is not None, "a measured table is calibrated"
    errors = calibration.errors
    return (
        f"{len(table.rows)} parts on {table.hardware} in {rows_s:.0f} s, median spread "
        f"{spreads[len(spreads) // 2]:.1%}; {table.range_text()}\n"
        f"{table.fit_text()}, fitted to {len(calibration.fitted)} networks in {networks_s:.0f} s"
        + ("" if errors is None else f"; {errors.text()}")
    )
