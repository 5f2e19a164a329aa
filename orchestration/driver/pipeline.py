"""The order of the stages of a job.

    job file -> latency table -> search per case -> architecture -> retrain -> record -> compare

A case with a given network skips the search. Parts that are in storage already are not repeated,
and a job without missing parts needs neither Ray nor torch.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.hardware import facts
from cluster.lease import Lease
from cluster.storage import HOME, Storage
from nas_core.latency import LatencyTable
from orchestration.config.credentials import without_passwords
from orchestration.config.digest import digest
from orchestration.config.job import Job
from orchestration.config.loading import job_text
from orchestration.config.storage_layout import (
    JOB_FILE,
    JOB_FORMAT,
    MLFLOW_FILE,
    TABLES,
)
from orchestration.driver.cross_target import targets_to_measure
from orchestration.driver.progress import Log, OnRecord
from orchestration.latency.table_store import store_table, stored_table
from orchestration.planning.case import Case
from orchestration.planning.cases import cases_of, plan_facts
from orchestration.planning.plan import Plan, make_plan
from orchestration.reports.results import JobResult, case_result
from orchestration.reports.table import ordered_results
from orchestration.reports.text import duration
from orchestration.scheduling.matching_widths import are_matched_widths_known, matched_width_cases
from orchestration.state.result import Result
from orchestration.state.results_on_disk import adopt, finish_adopting
from orchestration.state.run_file import begun, end_plan
from orchestration.state.snapshot import JobSnapshot, read_snapshot

STOPPED = "it was stopped; the same command goes on from there"


def no_log(_line: str) -> None:
    """Discard a progress line."""


def ignore_record(_case: str, _record: Mapping[str, Any]) -> None:
    """Discard a report of a case."""


def run(
    job: Job, *, job_file: str = "", log: Log = no_log, on_record: OnRecord = ignore_record
) -> JobResult:
    """Run a job to its end, or resume one that was stopped.

    Args:
        job: the job.
        job_file: its text, recorded with the job.
        log: called with each progress line.
        on_record: called with each epoch report of a case.

    Raises:
        SpecError: the job is not feasible; nothing was trained.
        StorageError: the storage cannot be used, or another driver owns the job's folder.
    """
    began, storage = time.monotonic(), Storage(job.storage)
    storage.check_writable()
    plan, folder = make_plan(job), storage.sub(job.name)
    with Lease(folder):
        folder.delete_unfinished()  # partial writes of a killed driver
        before = folder.find_json(JOB_FILE) or {}
        known = _known(plan, storage, log)
        cases, snapshot, failed, runs = known.cases, known.snapshot, {}, before.get("runs", [])
        if known.is_done:
            count = len(cases) - len(snapshot.stopped_early(cases))
            log(f"all {count} networks of {job.name} are in {folder.uri}; nothing to train")
        else:
            from orchestration.driver.executor import run_missing

            with begun(plan, cases, folder, known.tables, is_complete=known.is_complete):
                done = run_missing(plan, storage, known.tables, log, on_record)
            cases, failed, runs = done.cases, done.failed, [*runs, done.facts]
            snapshot = read_snapshot(folder, job.asha)
        _write_job(plan, folder, cases, job_file, before.get("submitted"), runs, failed)
        end_plan(folder)
        result = _conclude(job, storage, cases, failed, snapshot, log)
        if not known.is_done:
            wall_s = time.monotonic() - began
            share = runs[-1]["busy_s"] / wall_s
            log(f"time     {duration(wall_s)}, {share:.0%} of it in training steps or timing")
        return result


def show_plan(job: Job, log: Log, *, is_quick: bool = False) -> None:
    """Log what `run` would do. Unless `is_quick`, measure what is needed to estimate time and cost.

    Raises:
        SpecError: the job is not feasible.
        StorageError: the storage cannot be used.
    """
    from orchestration.driver import preview

    storage = Storage(job.storage)
    storage.check_writable()
    plan = make_plan(job)
    show = preview.show_known_plan if is_quick else preview.show_plan
    show(plan, storage, _known_tables(plan, storage), log)


@dataclass(frozen=True)
class _Known:
    """State of a job in the storage, before it runs."""

    tables: dict[str, LatencyTable]
    """Latency tables, by target."""
    cases: list[Case]
    """Cases that follow from these tables."""
    snapshot: JobSnapshot
    is_complete: bool
    """Whether `cases` are all cases of the job."""
    is_done: bool
    """Whether nothing is left to train or to measure."""


def _known(plan: Plan, storage: Storage, log: Log) -> _Known:
    """Tables and cases that the storage knows; cases take over results under their old names."""
    folder, tables = storage.sub(plan.job.name), _known_tables(plan, storage)
    for target, table in plan.shipped.items():
        store_table(storage, plan.table_keys[target], table)
    cases = cases_of(plan, tables)
    cases += matched_width_cases(plan, cases, tables, storage)
    finish_adopting(folder)  # what a driver that was killed has begun
    snapshot = read_snapshot(folder, plan.job.asha)
    adopted = adopt(cases, folder, snapshot)
    for name, old in adopted.items():
        log(f"{name} was named {old} before; its result is reused")
    if adopted:
        snapshot = read_snapshot(folder, plan.job.asha)
    is_complete = tables.keys() == plan.table_keys.keys() and are_matched_widths_known(
        plan, cases, tables, storage
    )
    is_done = is_complete and _is_done(plan, cases, tables, folder, snapshot)
    return _Known(tables, cases, snapshot, is_complete, is_done)


def _is_done(
    plan: Plan,
    cases: list[Case],
    tables: dict[str, LatencyTable],
    folder: Storage,
    snapshot: JobSnapshot,
) -> bool:
    """Whether nothing is left to train or to measure."""
    early = snapshot.stopped_early(cases)
    if not all(case.name in early or snapshot.is_done(case) for case in cases):
        return False
    return not targets_to_measure(plan, snapshot.finished(cases), tables, folder)


def _conclude(
    job: Job,
    storage: Storage,
    cases: list[Case],
    failed: Mapping[str, str],
    snapshot: JobSnapshot,
    log: Log,
) -> JobResult:
    """Write the comparison, record the job, and log the outcome of every case."""
    folder = storage.sub(job.name)
    finished = [case for case in cases if snapshot.is_done(case)]
    early = snapshot.stopped_early(cases)
    undone = [case.name for case in cases if case not in finished and case.name not in early]
    # Read back, since pages and records take values as JSON gives them, lists in place of tuples.
    facts = folder.read_json(JOB_FILE)
    results = ordered_results(snapshot.results.values(), facts)
    reasons = {name: failed.get(name, STOPPED) for name in undone}
    try:
        _compare(storage, folder, snapshot.finished(cases), results, facts, log)
    except Exception as error:  # drawing can raise any error, and the job itself is done
        log(f"WARNING not all figures were drawn: {type(error).__name__}: {error}")
    links = _record(job, storage, results, facts, log)
    for name, reason in early.items():
        log(f"stopped early: {name} {reason}")
    for name, reason in reasons.items():
        log(f"FAILED {name}: {reason}")
    for link in links:
        log(link)
    done = tuple(case_result(snapshot.results[case.name], case, folder) for case in finished)
    return JobResult(job.name, done, reasons, links)


def _known_tables(plan: Plan, storage: Storage) -> dict[str, LatencyTable]:
    """Tables, by target, that ship with the project or are in storage."""
    keys = {name: key for name, key in plan.table_keys.items() if name not in plan.shipped}
    accepts = plan.job.measure.accept_noisy
    stored = {name: stored_table(storage, key, accept_noisy=accepts) for name, key in keys.items()}
    return plan.shipped | {name: table for name, table in stored.items() if table is not None}


def _write_job(
    plan: Plan,
    folder: Storage,
    cases: list[Case],
    job_file: str,
    submitted: str | None,
    runs: list[dict[str, Any]],
    failed: Mapping[str, str],
) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    job = plan.job
    folder.write_json(
        JOB_FILE,
        {
            "format": JOB_FORMAT,
            "name": job.name,
            "key": digest({"job": job.name, "folder": folder.uri}),
            "job_file": without_passwords(job_file or job_text(job)),
            "settings": without_passwords(job.to_dict()),
            "plan": plan_facts(plan, cases),
            "experiment": job.experiment,
            "registered_prefix": job.experiment,
            "git_commit": _git_commit(),
            "submitted": now if submitted is None else submitted,
            "runs": runs,
            "failed": dict(failed),
            "hardware": facts(),
        },
    )


def _git_commit() -> str | None:
    """Commit of this code; None outside a git checkout."""
    command, here = ["git", "rev-parse", "HEAD"], Path(__file__).parent
    try:
        done = subprocess.run(
            command, cwd=here, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def tracking_uri(job: Job | None, storage: Storage) -> str:
    """Tracking URI of a job: from its settings, else from the environment, else a SQLite file.

    The file is in the storage, or in `~/proxyless` if the storage is not a local folder. Logins are
    not stored with a job: if the environment has the same address with a login, that one is used.
    """
    own = job.record.tracking_uri if job else None
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if own is None or (named and without_passwords(named) == own):
        own = named
    return own or f"sqlite:///{(storage if storage.is_local else Storage(HOME)).path(MLFLOW_FILE)}"


def _record(
    job: Job,
    storage: Storage,
    results: Sequence[Result],
    facts: Mapping[str, Any],
    log: Log,
) -> tuple[str, ...]:
    """Record the job in MLflow. Errors are logged and do not fail the job."""
    from orchestration.tracking import RecordError, record_job

    folder, uri = storage.sub(job.name), tracking_uri(job, storage)
    try:
        links = record_job(
            folder,
            storage.sub(TABLES),
            tracking_uri=uri,
            experiment=job.experiment,
            patience_s=job.record.patience_s,
            is_waited_for=True,
            results=results,
            facts=facts,
        )
    except RecordError as error:
        log(f"WARNING not recorded: {error}")
        log(
            f"        all results are in {folder.uri}; record them later: "
            f"proxyless record {folder.uri}"
        )
        if uri != without_passwords(uri):
            log("        with its login in MLFLOW_TRACKING_URI, since logins are not stored")
        return ()
    shown = {"report": links.report, "runs": links.runs, "compare": links.compare}
    pages = [f"{name:<8} {link}" for name, link in shown.items()]
    return (*pages, *(f"model    {model}" for model in links.models))


def _compare(
    storage: Storage,
    folder: Storage,
    finished: Sequence[Result],
    results: Sequence[Result],
    facts: Mapping[str, Any],
    log: Log,
) -> None:
    """Write the comparison of all results and log the comparison of the finished cases."""
    from orchestration.reports.comparison import write_comparison
    from orchestration.reports.table import comparison_text

    if not finished:
        return
    write_comparison(folder, storage.sub(TABLES), results, facts)
    for hardware in dict.fromkeys(result["hardware"] for result in finished):
        log(comparison_text([item for item in finished if item["hardware"] == hardware]))
