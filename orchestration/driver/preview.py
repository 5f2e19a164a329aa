"""Preview of a job: its plan with an estimate of time and price.

Measures missing tables and times a few steps of each phase. Timings are stored under a content key,
so that a later run has the estimate too, and reports its error at the end.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from cluster.hardware import facts
from cluster.placement import this_machine
from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.config.digest import digest
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import timings_file, timings_folder
from orchestration.driver.progress import Log
from orchestration.planning.case import Case, NamedCase
from orchestration.planning.cases import cases_of
from orchestration.planning.content_keys import training_parts
from orchestration.planning.plan import Plan
from orchestration.planning.worker_layout import NodeResources, worker_layout
from orchestration.reports.plan import plan_lines
from orchestration.scheduling.estimate import Estimate, Timings, estimate
from orchestration.scheduling.matching_widths import matched_width_cases
from orchestration.state.snapshot import JobSnapshot

if TYPE_CHECKING:
    from orchestration.driver.session import JobSession


def show_known_plan(
    plan: Plan, storage: Storage, tables: dict[str, LatencyTable], log: Log
) -> None:
    """Log the plan of a run from what is in storage; nothing is measured."""
    _check_targets(plan)
    cases, folder = cases_of(plan, tables), storage.sub(plan.job.name)
    cases += matched_width_cases(plan, cases, tables, storage)
    here = this_machine().resources
    room = NodeResources(int(here.get("CPU", 0)), here.get("GPU", 0.0))
    gpus = f" and {room.gpus:g} GPUs" if room.gpus else ""
    workers = (
        f"{worker_layout(plan.job.cluster, [room])}, on this machine's {room.cpus} cores{gpus}"
    )
    for line in plan_lines(plan, tables, cases, folder, workers):
        log(line)


def show_plan(plan: Plan, storage: Storage, tables: dict[str, LatencyTable], log: Log) -> None:
    """Log the plan of a run with its cost; measures missing tables and times steps."""
    from orchestration.driver.session import open_session

    _check_targets(plan)
    cases_of(plan, tables)  # raises errors before Ray is started
    with open_session(plan, storage, tables, log) as session:
        snapshot = session.snapshot()
        expected = known_estimate(session, snapshot) or _timed_estimate(session, snapshot, log)
        for line in plan_lines(
            plan,
            session.tables,
            session.cases,
            session.folder,
            str(session.layout),
            expected,
            snapshot=snapshot,
        ):
            log(line)


def known_estimate(session: JobSession, snapshot: JobSnapshot) -> Estimate | None:
    """Estimate of a run; None if its steps were not timed before or nothing is left to do."""
    place = timings_file(_timings_key(session))
    if not session.storage.exists(place) or not session.missing(snapshot):
        return None
    timings = Timings.from_dict(session.storage.read_json(place))
    return None if timings is None else _estimate(session, snapshot, timings)


def _estimate(session: JobSession, snapshot: JobSnapshot, timings: Timings) -> Estimate:
    return estimate(
        session.plan,
        session.order(snapshot),
        timings,
        session.layout,
        len(session.rooms),
        session.folder,
    )


def _timings_key(session: JobSession) -> str:
    """Path of the timings, named by a digest of everything that affects step time.

    That is images, space, settings, networks, machines and targets.
    """
    job, plan = session.plan.job, session.plan
    settings = {"search": asdict(job.search), "retrain": job.retrain and asdict(job.retrain)}
    values: dict[str, Any] = {
        **training_parts(job.with_seed(0), plan.data, plan.space, "any"),
        **settings,
        "crews": [str(session.layout), str(session.warmup_layout)],
        "processor": facts()["cpu"],
        "tables": plan.table_keys,
        "models": sorted(_named_networks(session.cases)),
    }
    return digest(values)


def _timed_estimate(session: JobSession, snapshot: JobSnapshot, log: Log) -> Estimate | None:
    """Time a few steps of each phase and estimate the run; None if nothing is left to do."""
    order = session.order(snapshot)
    if not order.cases:
        return None
    log("time     a few steps of each phase ...")
    key = _timings_key(session)
    folder = timings_folder(key)
    try:
        timings = _timed(session, order.cases, folder)
    except RuntimeError as error:
        raise SpecError(str(error)) from None
    finally:
        session.storage.delete(folder)
    session.storage.write_json(timings_file(key), timings.to_dict())
    return _estimate(session, snapshot, timings)


def _timed(session: JobSession, cases: Sequence[Case], folder: str) -> Timings:
    from orchestration.driver.step_timing import timed_steps

    place, timed = session.storage.sub(folder), _cases_to_time(cases, session.layout.at_once)
    models = list(_named_networks(cases).values())
    works = [
        session.task(case, models[i :: len(timed)], session.layout, place.uri)
        for i, case in enumerate(timed)
    ]
    warmup = None
    searches = [case for case in timed if case.warmup_key is not None]
    if session.warmup_layout != session.layout and searches:
        first = replace(searches[0], name="warm-up")
        warmup = session.task(first, (), session.warmup_layout, place.uri)
    return timed_steps(
        works, warmup, (session.layout, session.warmup_layout), place, session.stop_signal
    )


def _named_networks(cases: Sequence[Case]) -> dict[str, NamedCase]:
    """A case for each network that the job names, by digest of the network."""
    return {digest(case.model): case for case in cases if isinstance(case, NamedCase)}


def _cases_to_time(cases: Sequence[Case], at_once: int) -> list[Case]:
    """Cases to time: one or more per target, searches preferred, as many as run concurrently."""
    ordered = sorted(cases, key=lambda case: case.kind != "search")
    first = {case.target: case for case in reversed(ordered)}
    count = max(len(first), min(at_once, len(cases)))
    chosen = list(islice(cycle(first.values()), count))
    return [replace(case, name=f"timed-{i}") for i, case in enumerate(chosen)]


def _check_targets(plan: Plan) -> None:
    """Check that every target has a node, in the cluster at RAY_ADDRESS or on this machine."""
    from cluster.connect import connect
    from cluster.placement import PlacementError, node_for, nodes

    measured = [target for target in plan.targets if target.is_measured]
    try:
        if os.environ.get("RAY_ADDRESS") and any(t.resources or t.labels for t in measured):
            with connect():
                known_nodes = nodes()
        else:
            known_nodes = [this_machine()]
        for target in measured:
            node_for(target, known_nodes)
    except PlacementError as error:
        raise SpecError(str(error)) from None
