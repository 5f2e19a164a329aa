"""The order of the stages; the only file that knows the flow.

    job file -> latency table -> search per case -> architecture -> retrain -> record -> compare

A case that names its network skips the search.

What is in storage already is not done again; a job of which nothing is left to do needs neither Ray
nor torch.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.hardware import Target, facts
from cluster.lease import Lease
from cluster.runtimes import MeasurementError
from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.job import Job
from orchestration.keys import digest
from orchestration.latency_tables import store_table, stored_table
from orchestration.plan import (
    Case,
    Plan,
    cases_of,
    is_done,
    make_plan,
    plan_facts,
    with_references,
)
from orchestration.plan_text import plan_lines
from orchestration.progress import ProgressLines, Say, case_bars
from orchestration.results import JobResult, read_result
from orchestration.spec import SpecError
from orchestration.stopping import Stopper

if TYPE_CHECKING:
    from cluster.placement import Node


def quiet(_line: str) -> None:
    """Say nothing."""


def run(job: Job, *, job_file: str = "", say: Say = quiet) -> JobResult:
    """Run a job to its end, or go on with one that was stopped.

    Args:
        job: what to do.
        job_file: its text, to be recorded with it.
        say: takes the lines that a person reads.

    Raises:
        SpecError: the job cannot be done as it is; nothing was trained.
        StorageError: the storage cannot be used, or another driver owns the job's folder.
    """
    storage = Storage(job.storage)
    storage.check_writable()
    plan = make_plan(job)
    with Lease(storage.sub(job.name)):
        storage.sub(job.name).delete_temporary()  # what a killed driver left half written
        return _run_owned(plan, storage, job_file, say)


def show_plan(job: Job, say: Say) -> None:
    """Say what `run` would do, as far as storage tells."""
    storage = Storage(job.storage)
    storage.check_writable()
    plan = make_plan(job)
    _check_places(plan)
    tables = _known_tables(plan, storage)
    cases = cases_of(plan, tables)
    done = {case.name for case in cases if is_done(case, storage.sub(job.name))}
    for line in plan_lines(plan, tables, cases, done, _workers_here(job)):
        say(line)


def _check_places(plan: Plan) -> None:
    """Refuse a plan with a target that no node offers: of the Ray that is named, else of here."""
    from cluster.connect import connect
    from cluster.placement import PlacementError, node_for, nodes, this_machine

    measured = [target for target in plan.targets if target.is_measured]
    try:
        if os.environ.get("RAY_ADDRESS") and any(t.resources or t.labels for t in measured):
            with connect():
                there = nodes()
        else:
            there = [this_machine()]
        for target in measured:
            node_for(target, there)
    except PlacementError as error:
        raise SpecError(str(error)) from None


def _workers_here(job: Job) -> str:
    from orchestration.sweep import crewing

    cores = int(facts()["cores"])
    return f"{crewing(job.cluster, cores, 0)}, on this machine's {cores} cores"


def _run_owned(plan: Plan, storage: Storage, job_file: str, say: Say) -> JobResult:
    folder, tables = storage.sub(plan.job.name), _known_tables(plan, storage)
    for target, table in plan.shipped.items():
        store_table(storage, plan.table_keys[target], table)
    cases = cases_of(plan, tables)
    failed: dict[str, str] = {}
    is_known = tables.keys() == plan.table_keys.keys()
    if is_known and all(is_done(case, folder) for case in cases):
        say(f"all {len(cases)} networks of {plan.job.name} are in {folder.uri}; nothing to train")
    else:
        cases, failed = _do_missing(plan, storage, tables, say)
    _write_job(plan, folder, cases, job_file)
    finished = [case for case in cases if case.name not in failed and is_done(case, folder)]
    for case in cases:
        if case.kind != "reference" and case not in finished:
            failed.setdefault(case.name, "it was stopped; the same command goes on from there")
    _compare(storage, folder, finished, say)
    links = _record(plan.job, storage, say)
    for name, reason in failed.items():
        say(f"FAILED {name}: {reason}")
    for link in links:
        say(link)
    results = tuple(read_result(folder, case) for case in finished)
    return JobResult(plan.job.name, results, failed, links)


def _known_tables(plan: Plan, storage: Storage) -> dict[str, LatencyTable]:
    """Tables by target that need no measuring: they ship, or are in storage."""
    keys = {name: key for name, key in plan.table_keys.items() if name not in plan.shipped}
    accepts = plan.job.measure.accept_noisy
    found = {name: stored_table(storage, key, accept_noisy=accepts) for name, key in keys.items()}
    return plan.shipped | {name: table for name, table in found.items() if table is not None}


def _do_missing(
    plan: Plan, storage: Storage, tables: dict[str, LatencyTable], say: Say
) -> tuple[list[Case], dict[str, str]]:
    """Measure, search and retrain what is not in storage."""
    from cluster.connect import connect
    from cluster.head import stop_signals_to
    from orchestration.sweep import check_placeable, crewing

    folder, stopper = storage.sub(plan.job.name), Stopper()
    # The signals after Ray, which installs its own.
    with (
        connect() as ray_facts,
        stop_signals_to(stopper.on_signal),
        _compilers_running(plan),
    ):
        cpus, gpus = int(ray_facts.cpus), int(ray_facts.gpus)
        crew = crewing(plan.job.cluster, cpus, gpus)
        problem = check_placeable(crew, cpus, gpus)
        if problem:
            raise SpecError(problem)
        _check_devices(plan, storage, tables)
        tables = {**tables, **_measure_missing(plan, storage, tables, say)}
        cases = cases_of(plan, tables)
        done = {case.name for case in cases if is_done(case, folder)}
        for line in plan_lines(plan, tables, cases, done, str(crew)):
            say(line)
        return cases, _train_missing(plan, tables, cases, done, crew, folder, say, stopper)


def _check_devices(plan: Plan, storage: Storage, tables: dict[str, LatencyTable]) -> None:
    """Refuse to go on with tables of other devices than those that are there."""
    from orchestration.devices import check_same_device

    for target in plan.targets:
        if target.is_measured and target.name in tables:
            place = storage.path(f"tables/{plan.table_keys[target.name]}.json")
            try:
                check_same_device(tables[target.name], target, str(place))
            except MeasurementError as error:
                raise SpecError(str(error)) from None


def _compilers_running(plan: Plan) -> AbstractContextManager[None]:
    """Compilers from the start, if something is going to be lowered: they take a while to come."""
    from orchestration.compilers import compilers_running

    is_measured = any(target.is_measured for target in plan.targets)
    if is_measured or plan.job.retrain is not None:
        return compilers_running(_nodes_of(plan))
    return nullcontext()


def _nodes_of(plan: Plan) -> list[Node]:
    """Where the targets of a job are measured, each node once."""
    from cluster.placement import PlacementError, node_for, nodes

    there, measured = nodes(), [target for target in plan.targets if target.is_measured]
    try:
        found = {node.id: node for target in measured for node in [node_for(target, there)]}
    except PlacementError as error:
        raise SpecError(str(error)) from None
    return list(found.values())


def _measure_missing(
    plan: Plan, storage: Storage, tables: dict[str, LatencyTable], say: Say
) -> dict[str, LatencyTable]:
    measured = {}
    for target in plan.targets:
        if target.name not in tables:
            say(f"measure  {target.hardware()} ...")
            measured[target.name] = _measured(plan, target, storage, say)
    return measured


def _measured(plan: Plan, target: Target, storage: Storage, say: Say) -> LatencyTable:
    from orchestration.measure import measure_table

    def say_each(text: str) -> None:
        for line in text.splitlines():
            say(f"measure  {line}")

    settings, key = plan.job.measure, plan.table_keys[target.name]
    try:
        return measure_table(plan.space, target, settings, storage, key, say=say_each)
    except MeasurementError as error:
        raise SpecError(str(error)) from None


def _train_missing(
    plan: Plan,
    tables: dict[str, LatencyTable],
    cases: list[Case],
    done: set[str],
    crew: Any,
    folder: Storage,
    say: Say,
    stopper: Stopper,
) -> dict[str, str]:
    from orchestration.case import CaseWork
    from orchestration.sweep import run_cases

    missing = [case for case in cases if case.name not in done]
    threads, targets = crew.cpus_per_worker, {target.name: target for target in plan.targets}
    works = [
        CaseWork(
            plan.job, case, extra, targets[case.target], tables[case.target], folder.uri, threads
        )
        for case, extra in with_references(missing)
    ]
    lines = ProgressLines(say, named=len(works) > 1)
    with case_bars() as bars:

        def show(case: str, record: dict[str, Any]) -> None:
            lines(case, record)
            bars(case, record)

        return run_cases(works, crew, folder, show, stopper)


def _write_job(plan: Plan, folder: Storage, cases: list[Case], job_file: str) -> None:
    before = folder.read_json("job.json") if folder.exists("job.json") else {}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    job = plan.job
    folder.write_json(
        "job.json",
        {
            "format": "job/1",
            "name": job.name,
            "key": digest({"job": job.name, "folder": folder.uri}),
            "job_file": job_file,
            "settings": job.to_dict(),
            "plan": plan_facts(plan, cases),
            "experiment": job.experiment,
            "registered_prefix": job.experiment,
            "git_commit": _git_commit(),
            "submitted": before.get("submitted", now),
            "hardware": facts(),
        },
    )


def _git_commit() -> str | None:
    words = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def tracking_uri(job: Job | None, storage: Storage) -> str:
    """Where a job is recorded: its own MLflow, else that of the environment, else a local file."""
    named = (job.record.tracking_uri if job else None) or os.environ.get("MLFLOW_TRACKING_URI")
    return named or f"sqlite:///{storage.path('mlflow.db')}"


def _record(job: Job, storage: Storage, say: Say) -> tuple[str, ...]:
    """Write MLflow from storage. What goes wrong there costs the job nothing."""
    from orchestration.record import RecordError, record_job

    folder, uri = storage.sub(job.name), tracking_uri(job, storage)
    try:
        links = record_job(
            folder, storage.sub("tables"), tracking_uri=uri, experiment=job.experiment
        )
    except RecordError as error:
        say(f"WARNING not recorded: {error}")
        say(
            f"        all results are in {folder.uri}; record them later: "
            f"proxyless record {folder.uri}"
        )
        return ()
    shown = [f"runs     {links.runs}", f"cases    {links.cases}", f"compare  {links.compare}"]
    return (*shown, *(f"model    {model}" for model in links.models))


def _compare(storage: Storage, folder: Storage, finished: list[Case], say: Say) -> None:
    from orchestration.compare import comparison_text, write_comparison

    if not finished:
        return
    results = [folder.read_json(f"{case.folder}/result.json") for case in finished]
    write_comparison(folder, storage.sub("tables"))
    for hardware in dict.fromkeys(result["hardware"] for result in results):
        say(comparison_text([one for one in results if one["hardware"] == hardware]))


def storage_of_job_folder(folder: str) -> tuple[Storage, str]:
    """The storage that a job's folder lies in, and the job's name.

    Raises:
        SpecError: the folder holds no job.
    """
    path = Path(folder).expanduser().absolute()
    if not (path / "job.json").is_file():
        raise SpecError(f"{path} holds no job.json; expected <storage>/<job> of a job that ran")
    return Storage(str(path.parent)), path.name
