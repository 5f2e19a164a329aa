"""`proxyless measure`: the latency table of a target and a space, without a job file."""

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
"""Told how many parts and networks are measured, of how many."""

BASELINES = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v2_1.4",
    "mnasnet",
    "shufflenet_v2_1.5",
    "resnet34",
)
"""Those of the poster without the networks of cells, which take minutes to lower."""


@dataclass(frozen=True, kw_only=True)
class MeasureJob(Section):
    """What to measure. Settings are those of a job file, by the same names."""

    target: str
    """Its name: a known one, or one under `targets`."""

    targets: dict[str, TargetSettings] = field(default_factory=dict)
    space: SpaceSettings = field(default_factory=SpaceSettings)
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    resolution: int = 224
    channels: int = 3
    classes: int = 1000
    baselines: tuple[str, ...] = BASELINES
    """Networks of the literature that are measured beside those of the space."""

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
        """The space that is measured.

        Raises:
            SpecError: it cannot be built for such images.
        """
        try:
            return self.space.build(self.classes, self.channels, self.resolution)
        except ValueError as error:
            raise SpecError(f"space: {error}") from None


@dataclass(frozen=True)
class Found:
    """A table, and where it is."""

    table: LatencyTable
    key: str
    is_new: bool
    """Whether it was measured just now."""
    is_file: bool = False
    """Whether it was read from a file: a job has to be told where it is."""


def measure(job: MeasureJob, log: Log, progress: Progress | None = None) -> Found:
    """The table of a target and a space: from storage, else measured now and kept there.

    Raises:
        SpecError: it cannot be measured; what was measured so far is kept.
    """
    space, storage = job.built_space(), Storage(job.storage)
    storage.check_writable()
    try:
        target = present(resolve(job.target, job.targets))
        shipped = shipped_table(target, space)
        if shipped is not None:
            key = shipped_key(shipped)
            store_table(storage, key, shipped)
            return Found(shipped, key, is_new=False)
        key = table_key(space, target, job.measure)
        known = stored_table(storage, key, accept_noisy=job.measure.accept_noisy)
        if known is not None and _is_enough(known, job):
            return Found(known, key, is_new=False)
        table = _measured(job, space, target, storage, key, log, progress, known)
    except (MeasurementError, PlacementError) as error:
        raise SpecError(str(error)) from None
    return Found(table, key, is_new=True)


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
    """Whether as many networks were measured as are asked for; in a job, fewer are."""
    from orchestration.latency.calibrate import CalibrationSize, random_networks

    known = table.calibration
    if known is None:
        return False
    wanted = len(random_networks(table, CalibrationSize().networks))
    drawn = [one for one in (*known.fitted, *known.checked) if one.name == "random"]
    return len(drawn) >= wanted and {one.name for one in known.others} >= set(job.baselines)


def imported(job: MeasureJob, path: Path) -> Found:
    """The table of a file that somebody else measured, kept in storage.

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
    return Found(table, key, is_new=False, is_file=True)


def table_lines(found: Found, storage: Storage) -> Sequence[str]:
    """What a person wants to know of a table, beyond what measuring it has said."""
    place = storage.where(table_file(found.key))
    file = f"file     {place}"
    calibration = found.table.calibration
    others = [] if calibration is None else calibration.others
    measured = [f"         {one.name}: {one.measured_ms:.4g} ms" for one in others]
    if found.is_new:
        return [file, *measured]
    lines = [*_known_lines(found.table), file, *measured]
    if found.is_file:
        table = f"targets: {{{found.table.target}: {{table: {place}}}}}"
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


def keep_picture_and_record(found: Found, storage: Storage) -> Sequence[str]:
    """Lines that say where they are; what goes wrong with MLflow costs nothing else."""
    from orchestration.tracking import RecordError, record_table

    if found.table.calibration is None:
        return []
    place, picture = table_picture_file(found.key), calibration_png(found.table)
    storage.write_bytes(place, picture)
    lines = [f"picture  {storage.where(place)}"]
    uri = tracking_uri(None, storage)
    try:
        link = record_table(
            *(found.table, found.key, picture),
            tracking_uri=uri,
            experiment=EXPERIMENT,
            folder=storage.uri,
        )
    except RecordError as error:
        return [*lines, f"WARNING not recorded: {error}"]
    return [*lines, f"run      {link}"]
