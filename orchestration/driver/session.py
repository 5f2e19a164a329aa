"""Session of a job: connection to Ray, latency tables, cases, and the layout of their workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cluster.hardware import Target
from cluster.runtimes.base import MeasurementError
from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.config.job import Job
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import table_file
from orchestration.driver.progress import Log
from orchestration.driver.stopping import StopSignal
from orchestration.planning.case import Case
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import Plan
from orchestration.planning.worker_layout import (
    NodeResources,
    WorkerLayout,
    check_placeable,
    warmup_layout,
    worker_layout,
)
from orchestration.scheduling.matching_widths import matched_width_cases, measure_widths
from orchestration.scheduling.order import Schedule, schedule
from orchestration.state.snapshot import JobSnapshot, read_snapshot

if TYPE_CHECKING:
    from cluster.placement import Node
    from orchestration.stages.context import CaseTask


@dataclass(frozen=True)
class JobSession:
    """A job with all tables measured and Ray running."""

    plan: Plan
    storage: Storage
    tables: dict[str, LatencyTable]
    cases: list[Case]
    rooms: Sequence[NodeResources]
    layout: WorkerLayout
    stop_signal: StopSignal
    timing_nodes: Sequence[Node] = ()
    """Nodes on which programs are timed."""

    @cached_property
    def jobs(self) -> dict[int, Job]:
        """The job with each of its seeds; cases share these objects, which are sent once."""
        return {seed: self.plan.job.with_seed(seed) for seed in self.plan.job.all_seeds}

    @property
    def folder(self) -> Storage:
        """Storage of the job."""
        return self.storage.sub(self.plan.job.name)

    @property
    def warmup_layout(self) -> WorkerLayout:
        """Layout of the workers of a warm-up that is trained on its own."""
        batch_size, lanes = self.plan.job.search.batch_size, self.plan.lanes
        return warmup_layout(self.layout, self.rooms, batch_size, lanes)

    def snapshot(self) -> JobSnapshot:
        """State of the cases as it is now; to be read anew after anything was trained."""
        return read_snapshot(self.folder, self.plan.job.asha)

    def timing_spans(self) -> list[tuple[float, float]]:
        """Time spans in which programs were timed."""
        from orchestration.programs.timing_workers import timing_spans

        return [span for node in self.timing_nodes for span in timing_spans(node)]

    def missing(self, snapshot: JobSnapshot) -> list[Case]:
        """Cases that have to be run."""
        return snapshot.missing(self.cases)

    def order(self, snapshot: JobSnapshot) -> Schedule:
        """Schedule of the missing cases."""
        return schedule(self.missing(snapshot), self.storage, self.folder)

    def task(
        self, case: Case, co_scheduled: Sequence[Case], layout: WorkerLayout, place: str
    ) -> CaseTask:
        """Input of the workers of a case.

        Args:
            case: to run.
            co_scheduled: cases that the same workers run after it.
            layout: of the workers.
            place: path or URI of the folder that they write to.
        """
        from orchestration.stages.context import CaseTask

        targets = {target.name: target for target in self.plan.targets}
        elsewhere = {item.target for item in co_scheduled} - {case.target}
        return CaseTask(
            self.jobs[case.seed],
            self.plan.data,
            case,
            tuple(co_scheduled),
            targets.get(case.target),
            self.tables.get(case.target),
            place,
            layout.cpus_per_worker,
            layout.gpus_per_worker,
            {name: (targets[name], self.tables[name]) for name in sorted(elsewhere)},
        )


def _rooms() -> list[NodeResources]:
    from cluster.placement import nodes

    return [
        NodeResources(int(node.resources.get("CPU", 0)), node.resources.get("GPU", 0.0))
        for node in nodes()
    ]


@contextmanager
def open_session(
    plan: Plan, storage: Storage, tables: dict[str, LatencyTable], log: Log
) -> Iterator[JobSession]:
    """Context manager that connects to Ray and measures missing tables.

    Raises:
        SpecError: the cluster lacks resources that the job needs; nothing was trained.
    """
    from cluster.connect import connect
    from cluster.head import stop_signals_to

    stop_signal = StopSignal()
    # Signal handlers come after Ray, which installs its own.
    with (
        connect(),
        stop_signals_to(stop_signal.on_signal),
        _compilers_running(plan) as timing_nodes,
    ):
        rooms = _rooms()
        layout = worker_layout(plan.job.cluster, rooms)
        problem = check_placeable(layout, rooms)
        if problem:
            raise SpecError(problem)
        if plan.lanes is not None and layout.workers > plan.lanes:
            raise SpecError(
                f"data.stream.lanes is {plan.lanes}, and a case has {layout.workers} workers here; "
                "expected a lane for each at least: raise it, or set cluster.workers"
            )
        _check_shared(storage)
        _check_devices(plan, storage, tables)
        tables = {**tables, **_measure_missing(plan, storage, tables, log)}
        cases = cases_of(plan, tables)
        measure_widths(plan, cases, tables, storage, log)
        cases += matched_width_cases(plan, cases, tables, storage)
        yield JobSession(plan, storage, tables, cases, rooms, layout, stop_signal, timing_nodes)


def _check_shared(storage: Storage) -> None:
    """Check that all nodes share the storage; otherwise workers would write to separate folders."""
    from cluster.placement import blind_nodes, nodes

    blind = blind_nodes(storage, nodes())
    if blind:
        hosts = ", ".join(dict.fromkeys(node.host for node in blind))
        raise SpecError(
            f"storage is {storage.uri}, which these nodes do not share: {hosts}; name a folder of "
            "a network file system, or s3://<bucket>/<prefix>"
        )


def _check_devices(plan: Plan, storage: Storage, tables: dict[str, LatencyTable]) -> None:
    """Check that existing tables were measured on the devices of this cluster."""
    from orchestration.latency.device import check_same_device

    for target in plan.targets:
        if target.is_measured and target.name in tables:
            path = storage.where(table_file(plan.table_keys[target.name]))
            try:
                check_same_device(tables[target.name], target, path)
            except MeasurementError as error:
                raise SpecError(str(error)) from None


@contextmanager
def _compilers_running(plan: Plan) -> Iterator[list[Node]]:
    """Context manager that starts compile workers early if anything will be lowered.

    Yields the nodes with timing workers.
    """
    from orchestration.programs.compile_workers import compile_workers_running

    is_measured = any(target.is_measured for target in plan.targets)
    if not is_measured and plan.job.retrain is None:
        yield []
        return
    nodes = _nodes_of(plan)
    with compile_workers_running(nodes):
        yield nodes


def _nodes_of(plan: Plan) -> list[Node]:
    """Nodes on which the targets of a job are measured, without duplicates."""
    from cluster.placement import PlacementError, node_for, nodes

    known, measured = nodes(), [target for target in plan.targets if target.is_measured]
    try:
        used = {node.id: node for target in measured for node in [node_for(target, known)]}
    except PlacementError as error:
        raise SpecError(str(error)) from None
    return list(used.values())


def _measure_missing(
    plan: Plan, storage: Storage, tables: dict[str, LatencyTable], log: Log
) -> dict[str, LatencyTable]:
    measured = {}
    for target in plan.targets:
        if target.name not in tables:
            log(f"measure  {target.hardware()} ...")
            measured[target.name] = _measured(plan, target, storage, log)
    return measured


def _measured(plan: Plan, target: Target, storage: Storage, log: Log) -> LatencyTable:
    from orchestration.latency.build_table import measure_table

    def say_each(text: str) -> None:
        for line in text.splitlines():
            log(f"measure  {line}")

    settings, key = plan.job.measure, plan.table_keys[target.name]
    try:
        return measure_table(plan.space, target, settings, storage, key, log=say_each)
    except MeasurementError as error:
        raise SpecError(str(error)) from None
