"""The order of the stages; the only file that knows the flow.

    job file -> latency table -> search per case -> architecture -> retrain -> record -> compare

A case that names its network skips the search.

What is in storage already is not done again; a job of which nothing is left to do needs neither Ray
nor torch.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
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
from orchestration.planning.cases import Case, cases_of, plan_facts
from orchestration.planning.plan import Plan, make_plan
from orchestration.reports.results import JobResult, case_result
from orchestration.reports.table import ordered_results
from orchestration.scheduling.matching_widths import are_matched_widths_known, matched_width_cases
from orchestration.state.result import Result
from orchestration.state.results_on_disk import adopt, finish_adopting
from orchestration.state.run_file import begun, end_plan
from orchestration.state.snapshot import JobSnapshot, read_snapshot

STOPPED = "it was stopped; the same command goes on from there"


def no_log(_line: str) -> None:
    """Say nothing."""


def ignore_record(_case: str, _record: Mapping[str, Any]) -> None:
    """What cases report is of interest to nobody."""


def run(
    job: Job, *, job_file: str = "", log: Log = no_log, on_record: OnRecord = ignore_record
) -> JobResult:
    """Run a job to its end, or go on with one that was stopped.

    Args:
        job: what to do.
        job_file: its text, to be recorded with it.
        log: takes the lines that a person reads.
        on_record: told what a case reports of an epoch, as it comes.

    Raises:
        SpecError: the job cannot be done as it is; nothing was trained.
        StorageError: the storage cannot be used, or another driver owns the job's folder.
    """
    storage = Storage(job.storage)
    storage.check_writable()
    plan = make_plan(job)
    with Lease(storage.sub(job.name)):
        storage.sub(job.name).delete_unfinished()  # what a killed driver left half written
        return _run_owned(plan, storage, job_file, log, on_record)


def show_plan(job: Job, log: Log, *, is_quick: bool = False) -> None:
    """Say what `run` would do; what it needs and costs too, unless that has to be quick.

    Raises:
        SpecError: the job cannot be done as it is.
        StorageError: the storage cannot be used.
    """
    from orchestration.driver import preview

    storage = Storage(job.storage)
    storage.check_writable()
    plan = make_plan(job)
    show = preview.show_known_plan if is_quick else preview.show_plan
    show(plan, storage, _known_tables(plan, storage), log)


def _run_owned(
    plan: Plan, storage: Storage, job_file: str, log: Log, on_record: OnRecord
) -> JobResult:
    """Do what is missing, by the owner of the job's folder."""
    folder, tables = storage.sub(plan.job.name), _known_tables(plan, storage)
    for target, table in plan.shipped.items():
        store_table(storage, plan.table_keys[target], table)
    cases = cases_of(plan, tables)
    cases += matched_width_cases(plan, cases, tables, storage)
    finish_adopting(folder)  # what a driver that was killed has begun
    seen = read_snapshot(folder, plan.job.asha)
    adopted = adopt(cases, folder, seen)
    for name, old in adopted.items():
        log(f"{name} is what {old} was, under another name")
    if adopted:
        seen = read_snapshot(folder, plan.job.asha)
    is_complete = tables.keys() == plan.table_keys.keys() and are_matched_widths_known(
        plan, cases, tables, storage
    )
    before = folder.find_json(JOB_FILE) or {}
    failed, runs = {}, before.get("runs", [])
    if is_complete and _is_done(plan, cases, tables, folder, seen):
        count = len(cases) - len(seen.stopped_early(cases))
        log(f"all {count} networks of {plan.job.name} are in {folder.uri}; nothing to train")
    else:
        from orchestration.driver.executor import run_missing

        with begun(plan, cases, folder, tables, is_complete=is_complete):
            done = run_missing(plan, storage, tables, log, on_record)
        cases, failed, runs = done.cases, done.failed, [*runs, done.facts]
        seen = read_snapshot(folder, plan.job.asha)
    _write_job(plan, folder, cases, job_file, before.get("submitted"), runs, failed)
    end_plan(folder)
    return _told(plan.job, storage, cases, failed, seen, log)


def _is_done(
    plan: Plan,
    cases: list[Case],
    tables: dict[str, LatencyTable],
    folder: Storage,
    seen: JobSnapshot,
) -> bool:
    """Whether nothing is left to train or to measure."""
    early = seen.stopped_early(cases)
    if not all(case.name in early or seen.is_done(case) for case in cases):
        return False
    return not targets_to_measure(plan, seen.finished(cases), tables, folder)


def _told(
    job: Job,
    storage: Storage,
    cases: list[Case],
    failed: Mapping[str, str],
    seen: JobSnapshot,
    log: Log,
) -> JobResult:
    """Compare and record what is there, and say what became of every case."""
    folder = storage.sub(job.name)
    finished = [case for case in cases if seen.is_done(case)]
    early = seen.stopped_early(cases)
    undone = [case.name for case in cases if case not in finished and case.name not in early]
    # Read back, since pages and records take values as JSON gives them, lists in place of tuples.
    facts = folder.read_json(JOB_FILE)
    results = ordered_results(seen.results.values(), facts)
    reasons = {name: failed.get(name, STOPPED) for name in undone}
    try:
        _compare(storage, folder, seen.finished(cases), results, facts, log)
    except Exception as error:  # drawing raises anything, and all else of the job is done
        log(f"WARNING not all pictures were drawn: {type(error).__name__}: {error}")
    links = _record(job, storage, results, facts, log)
    for name, reason in early.items():
        log(f"stopped early: {name} {reason}")
    for name, reason in reasons.items():
        log(f"FAILED {name}: {reason}")
    for link in links:
        log(link)
    told = tuple(case_result(seen.results[case.name], case, folder) for case in finished)
    return JobResult(job.name, told, reasons, links)


def _known_tables(plan: Plan, storage: Storage) -> dict[str, LatencyTable]:
    """Tables by target that need no measuring: they ship, or are in storage."""
    keys = {name: key for name, key in plan.table_keys.items() if name not in plan.shipped}
    accepts = plan.job.measure.accept_noisy
    found = {name: stored_table(storage, key, accept_noisy=accepts) for name, key in keys.items()}
    return plan.shipped | {name: table for name, table in found.items() if table is not None}


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
    """Of this code, where it is a checkout."""
    words, here = ["git", "rev-parse", "HEAD"], Path(__file__).parent
    try:
        found = subprocess.run(
            words, cwd=here, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def tracking_uri(job: Job | None, storage: Storage) -> str:
    """Where a job is recorded: its own MLflow, else that of the environment, else a local file: in
    the storage, or in `~/proxyless` where that is no folder.

    Of its own the storage has kept no login; where the environment names the same with one, that is
    taken.
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
    """Write MLflow from storage. What goes wrong there costs the job nothing."""
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
            log("        with its login in MLFLOW_TRACKING_URI, which is kept nowhere")
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
    """Write the comparison of all results, and say how the finished cases compare."""
    from orchestration.reports.comparison import write_comparison
    from orchestration.reports.table import comparison_text

    if not finished:
        return
    write_comparison(folder, storage.sub(TABLES), results, facts)
    for hardware in dict.fromkeys(result["hardware"] for result in finished):
        log(comparison_text([one for one in finished if one["hardware"] == hardware]))
