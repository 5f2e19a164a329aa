"""`proxyless measure`: measure the latency table of a target and a space without a job file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.hardware import TABLE, Target
from cluster.placement import PlacementError
from cluster.runtimes import present
from cluster.runtimes.base import MeasurementError
from cluster.storage import Storage
from nas_core.latency import LatencyTable
from nas_core.settings import MeasureSettings, Section, require
from nas_core.space import SearchSpace
from orchestration.config.loading import SpecError
from orchestration.config.space import SpaceSettings
from orchestration.config.storage_layout import table_file, table_picture_file
from orchestration.config.targets import TargetSettings, resolve
from orchestration.driver.pipeline import tracking_uri
from orchestration.driver.progress import Log
from orchestration.latency.device import identity
from orchestration.latency.table_files import read_table
from orchestration.latency.table_store import shipped_table, store_table, stored_table
from orchestration.planning.content_keys import shipped_key, table_key
from orchestration.reports.figures.calibration import calibration_png

Progress = Callable[[int, int], None]
"""Called with the number of parts and networks measured so far, and their total."""

BASELINES = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v2_1.4",
    "mnasnet",
    "shufflenet_v2_1.5",
    "resnet34",
)
"""Baselines of the ProxylessNAS poster, except cell networks, which take minutes to lower."""


@dataclass(frozen=True, kw_only=True)
class MeasureJob(Section):
    """A latency table to measure. Settings have the names that they have in a job file."""

    target: str
    """Name of a built-in target, or of one under `targets`."""

    targets: dict[str, TargetSettings] = field(default_factory=dict)
    space: SpaceSettings = field(default_factory=SpaceSettings)
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    resolution: int = 224
    channels: int = 3
    classes: int = 1000
    baselines: tuple[str, ...] = BASELINES
    """Networks of the literature to measure in addition to those of the space."""

    storage: str = "~/proxyless"

    def __post_init__(self) -> None:
        from nas_core.baselines.registry import check_name

        require(8 <= self.resolution <= 1024, "resolution", self.resolution, "8 to 1024 pixels")
        for name in ("channels", "classes"):
            value = getattr(self, name)
            require(value >= 1, name, value, "a whole number of 1 or more")
        for name in self.baselines:
            check_name(name)
        resolve(self.target, self.targets)

    def built_space(self) -> SearchSpace:
        """The search space to measure.

        Raises:
            SpecError: the space cannot be built for images of this shape.
        """
        try:
            return self.space.build(self.classes, self.channels, self.resolution)
        except ValueError as error:
            raise SpecError(f"space: {error}") from None


@dataclass(frozen=True)
class StoredTable:
    """A latency table and its key in storage."""

    table: LatencyTable
    key: str
    is_new: bool
    """Whether it was measured by this call."""
    is_file: bool = False
    """Whether it was read from a file. A job finds it only if its `targets` name the path."""


def measure(job: MeasureJob, log: Log, progress: Progress | None = None) -> StoredTable:
    """The table of a target and a space: from storage, else measured now and stored.

    Raises:
        SpecError: it cannot be measured. Rows measured so far stay in storage.
    """
    space, storage = job.built_space(), Storage(job.storage)
    storage.check_writable()
    try:
        target = present(resolve(job.target, job.targets))
        shipped = shipped_table(target, space)
        if shipped is not None:
            key = shipped_key(shipped)
            store_table(storage, key, shipped)
            return StoredTable(shipped, key, is_new=False)
        key = table_key(space, target, job.measure)
        known = stored_table(storage, key, accept_noisy=job.measure.accept_noisy)
        if known is not None and _is_enough(known, job):
            return StoredTable(known, key, is_new=False)
        table = _measured(job, space, target, storage, key, log, progress, known)
    except (MeasurementError, PlacementError) as error:
        raise SpecError(str(error)) from None
    return StoredTable(table, key, is_new=True)


def _measured(
    job: MeasureJob,
    space: SearchSpace,
    target: Target,
    storage: Storage,
    key: str,
    log: Log,
    progress: Progress | None,
    known: LatencyTable | None,
) -> LatencyTable:
    from cluster.connect import connect
    from cluster.placement import node_for, nodes
    from nas_core.baselines.registry import for_space
    from orchestration.latency.build_table import measure_table
    from orchestration.latency.calibrate import CalibrationSize
    from orchestration.programs.compile_workers import compile_workers_running

    others = tuple(for_space(name, space) for name in job.baselines)
    extent = CalibrationSize(others=others, names=job.baselines)
    with connect(), compile_workers_running([node_for(target, nodes())]):
        return measure_table(
            space,
            target,
            job.measure,
            storage,
            key,
            log=log,
            extent=extent,
            progress=progress or (lambda _done, _all: None),
            known=known,
        )


def _is_enough(table: LatencyTable, job: MeasureJob) -> bool:
    """Whether the table was calibrated on as many networks as `job` asks for. Jobs use fewer."""
    from orchestration.latency.calibrate import CalibrationSize, random_networks

    known = table.calibration
    if known is None:
        return False
    wanted = len(random_networks(table, CalibrationSize().networks))
    drawn = [net for net in (*known.fitted, *known.checked) if net.name == "random"]
    return len(drawn) >= wanted and {net.name for net in known.others} >= set(job.baselines)


def imported(job: MeasureJob, path: Path) -> StoredTable:
    """Read a latency table from a file and store it.

    Raises:
        SpecError: the file does not hold the latencies of the space.
    """
    space, storage = job.built_space(), Storage(job.storage)
    target = Target(name=job.target, runtime=TABLE, table=str(path))
    try:
        table = read_table(path, space, target)
    except ValueError as error:
        raise SpecError(str(error)) from None
    key = shipped_key(table)
    store_table(storage, key, table)
    return StoredTable(table, key, is_new=False, is_file=True)


def table_lines(stored: StoredTable, storage: Storage) -> Sequence[str]:
    """Lines that describe a table, without those already logged while it was measured."""
    path = storage.where(table_file(stored.key))
    file = f"file     {path}"
    calibration = stored.table.calibration
    others = [] if calibration is None else calibration.others
    measured = [f"         {net.name}: {net.measured_ms:.4g} ms" for net in others]
    if stored.is_new:
        return [file, *measured]
    lines = [*_known_lines(stored.table), file, *measured]
    if stored.is_file:
        table = f"targets: {{{stored.table.target}: {{table: {path}}}}}"
        lines.append(f"use      in a job file: {table}")
    return lines


def _known_lines(table: LatencyTable) -> Sequence[str]:
    lines = [
        f"table    {table.hardware}: {len(table.rows)} parts of {table.space.name} at "
        f"{table.space.resolution} pixels, {table.range_text()}"
    ]
    if table.date:
        device = ", ".join(str(value) for value in identity(table.device).values())
        lines.append(f"measured {table.date[:16]} on {device}")
    if table.calibration is not None:
        lines.append(f"fit      {table.fit_text()}, on {len(table.calibration.fitted)} networks")
        errors = table.calibration.errors
        lines += [] if errors is None else [f"error    {errors.text()}"]
    return lines


EXPERIMENT = "latency tables"


def keep_picture_and_record(stored: StoredTable, storage: Storage) -> Sequence[str]:
    """Store the calibration figure and log the table to MLflow.

    Returns:
        Lines that say where they are. If MLflow fails, one of them is a warning.
    """
    from orchestration.tracking import RecordError, record_table

    if stored.table.calibration is None:
        return []
    path, picture = table_picture_file(stored.key), calibration_png(stored.table)
    storage.write_bytes(path, picture)
    lines = [f"picture  {storage.where(path)}"]
    uri = tracking_uri(None, storage)
    try:
        link = record_table(
            *(stored.table, stored.key, picture),
            tracking_uri=uri,
            experiment=EXPERIMENT,
            folder=storage.uri,
        )
    except RecordError as error:
        return [*lines, f"WARNING not recorded: {error}"]
    return [*lines, f"run      {link}"]
