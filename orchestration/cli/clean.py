"""`proxyless clean`: list and delete files that a job no longer needs.

Results, models and the comparison always stay. Checkpoints of a finished case and the state of Ray
Tune and Ray Train can be deleted: a finished job is recognised by its results alone. Other jobs and
further budgets start from warm-ups and shared searches, so these are deleted only on request, and
only if no unfinished case needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.lease import LEASE_FILE, Lease, LeaseHeld, holder
from cluster.storage import Storage, StorageError
from orchestration.config.storage_layout import (
    ACROSS,
    CASES,
    CHECKPOINTS,
    COMPARISON,
    JOB_FILE,
    PLAN_FILE,
    RUNGS_FILE,
    SEARCHES,
    STAGE_END_FILE,
    TABLES,
    TRAIN,
    TUNE,
    case_of_checkpoints,
    search_folder,
    table_name,
    warmup_folder,
)
from orchestration.driver.progress import Log
from orchestration.planning.case import Case
from orchestration.state.case_files import stopped_searches
from orchestration.state.job_folder import JobFolder, jobs_in
from orchestration.state.results_on_disk import is_done, stored_key
from orchestration.state.run_file import JobPlan, read_plan

KNOWN = {
    CASES: "results and models",
    COMPARISON: "tables and pictures",
    ACROSS: "what networks take on the other targets",
    JOB_FILE: "settings, cases and what runs took",
    PLAN_FILE: "cases of the run that has not ended",
    RUNGS_FILE: "which searches were stopped early",
    TUNE: "what Ray Tune keeps of a run",
    TRAIN: "what Ray Train keeps of a run",
}
RAYS = (TUNE, TRAIN)
ONE_BY_ONE = (CHECKPOINTS, SEARCHES)

TEMPORARY = ".*.tmp"
"""Pattern of the files that interrupted writers leave."""


@dataclass(frozen=True)
class CleanupItem:
    """A file or folder in storage, and whether to delete it."""

    description: str
    """Contents of the item, and the reason to keep or delete it."""
    goes: bool
    size_bytes: int
    folder: Storage
    key: str
    """Key in the folder, or TEMPORARY."""


@dataclass(frozen=True)
class CleanupPlan:
    """All files of a job, each marked to be kept or deleted."""

    done: int
    """Number of finished cases."""
    cases: int
    items: tuple[CleanupItem, ...]

    @property
    def goes(self) -> list[CleanupItem]:
        """Items that are no longer needed."""
        return [item for item in self.items if item.goes]


def cleanup_plan(job: JobFolder, *, warmups: bool = False) -> CleanupPlan:
    """Decide what to keep and what to delete of a job.

    Args:
        job: folder of the job.
        warmups: whether to consider warm-ups and shared searches too.

    Raises:
        StorageError: the job's plan cannot be read.
    """
    plan = read_plan(job.folder)
    done = sum(is_done(case, job.folder) for case in plan.cases)
    items = (
        *_others(job.folder),
        *_checkpoints(plan, job.folder),
        *_temporary(job.folder),
        *_searches(plan, job.folder, warmups=warmups),
        *_warmups(plan, job, warmups=warmups),
        *_tables(plan, job),
    )
    return CleanupPlan(done, len(plan.cases), items)


def _others(folder: Storage) -> Iterator[CleanupItem]:
    """Everything in the folder other than checkpoints and shared searches."""
    keys = folder.list()
    names = {key.split("/")[0] for key in keys}
    for name in sorted(names - {*ONE_BY_ONE, LEASE_FILE}):
        shown = name if name in keys else f"{name}/"
        description = f"{shown}: {KNOWN[name]}" if name in KNOWN else shown
        yield _item(description, name in RAYS, folder, name)


def _checkpoints(plan: JobPlan, folder: Storage) -> Iterator[CleanupItem]:
    """Checkpoints of each case."""
    for name in _below(folder, CHECKPOINTS):
        why, goes = _of_case(name, plan, folder)
        path = f"{CHECKPOINTS}/{name}"
        yield _item(f"{path}/: {why}", goes, folder, path)


def _of_case(name: str, plan: JobPlan, folder: Storage) -> tuple[str, bool]:
    """Reason to keep or delete the checkpoint folder of this name, and whether to delete it."""
    for case in _undone(plan, folder):
        if name == f"{case.name}-{case.key}":
            return f"{case.name} is not finished", False
    named = case_of_checkpoints(name)
    if named is None:
        return "of no case", False
    if stored_key(folder, named[0]) == named[1]:
        return f"{named[0]} is finished", True
    if named[1] in stopped_searches(plan, folder):
        return f"the search of {named[0]} was stopped early", True
    if plan.is_complete:
        return f"{named[0]} with settings that the job no longer has", True
    return f"{named[0]} is not finished", False


def _temporary(folder: Storage) -> Iterator[CleanupItem]:
    """Temporary files of writers that were killed."""
    size_bytes = folder.unfinished_bytes()
    if size_bytes:
        yield CleanupItem("temporary files of killed writers", True, size_bytes, folder, TEMPORARY)


def _searches(plan: JobPlan, folder: Storage, *, warmups: bool) -> Iterator[CleanupItem]:
    """Searches that several budgets share."""
    needed = {case.search_key: case.name for case in _undone(plan, folder)}
    for key in _below(folder, SEARCHES):
        path, is_needed = search_folder(key), key in needed or not plan.is_complete
        why = "further budgets begin there; --warmups deletes it"
        if warmups:
            why = "all its budgets are finished"
        if is_needed:
            why = f"{needed.get(key, 'the job')} is not finished"
        yield _item(f"{path}/: {why}", warmups and not is_needed, folder, path)


def _warmups(plan: JobPlan, job: JobFolder, *, warmups: bool) -> Iterator[CleanupItem]:
    """Warm-ups that cases of the job start from."""
    for key in sorted({case.warmup_key for case in plan.cases if case.warmup_key is not None}):
        path = warmup_folder(key)
        if not _below(job.storage, path):
            continue
        why, needed = "for other jobs too; --warmups deletes it", ""
        if warmups:
            needed = _needed_by(key, plan, job)
            why = needed or "all cases that start from it are finished"
        goes = warmups and not needed
        yield _item(f"../{path}/: {why}", goes, job.storage, path)


def _tables(plan: JobPlan, job: JobFolder) -> Iterator[CleanupItem]:
    """Latency tables of the job. They are never deleted."""
    keys = {case.table_key for case in plan.cases}
    there = [table_name(key) for key in sorted(keys) if key and job.tables.exists(table_name(key))]
    if there:
        size_bytes = sum(job.tables.size_bytes(key) for key in there)
        description = f"../{TABLES}/: {len(there)} latency tables, for other jobs too"
        yield CleanupItem(description, False, size_bytes, job.tables, "")


def _needed_by(key: str, plan: JobPlan, job: JobFolder) -> str:
    """Reason to keep a warm-up; empty if no unfinished case needs it."""
    if not plan.is_complete or key in _starts(plan, job.folder):
        return "a case of this job is not finished"
    if is_owned(job.storage.sub(warmup_folder(key))):
        return "it is being trained"
    for name in jobs_in(job.storage):
        if name != job.name and _needs(job.storage.sub(name), key):
            return f"the job {name} is not finished"
    return ""


def _needs(folder: Storage, key: str) -> bool:
    """Whether a job may still start from a warm-up. True if the job cannot be read."""
    try:
        plan = read_plan(folder)
        return is_owned(folder) or key in _starts(plan, folder)
    except StorageError:
        return True


def _starts(plan: JobPlan, folder: Storage) -> set[str | None]:
    """Keys of the warm-ups of unfinished cases."""
    return {case.warmup_key for case in _undone(plan, folder)}


def _undone(plan: JobPlan, folder: Storage) -> list[Case]:
    stopped = stopped_searches(plan, folder)
    return [case for case in plan.cases if not is_done(case, folder) and case.key not in stopped]


def is_owned(folder: Storage) -> bool:
    """Whether a live process holds the lease of a folder."""
    held = holder(folder)
    return held is not None and held.is_alive


def _below(folder: Storage, path: str) -> list[str]:
    """Names of the non-empty subfolders of a folder."""
    keys = (key.removeprefix(f"{path}/") for key in folder.list(path))
    return sorted({key.split("/")[0] for key in keys if "/" in key})


def _item(description: str, goes: bool, folder: Storage, key: str) -> CleanupItem:
    return CleanupItem(description, goes, folder.size_bytes(key), folder, key)


def clean(job: JobFolder, log: Log, *, is_sure: bool = False, warmups: bool = False) -> None:
    """List what to keep and what to delete; delete the latter if `is_sure`.

    Args:
        job: folder of the job.
        log: receives lines of text.
        is_sure: whether to delete.
        warmups: whether to include warm-ups and shared searches that no unfinished case needs.

    Raises:
        LeaseHeld: a driver owns the folder; nothing was deleted.
        StorageError: something cannot be read or deleted.
    """
    _check_free(job.folder, log if is_sure else None)
    if not is_sure:
        plan = cleanup_plan(job, warmups=warmups)
        _log_plan(plan, job, log)
        if plan.goes:
            log(f"nothing was deleted; with --yes {_sum(plan)} would be")
        return
    with Lease(job.folder) as lease:
        plan = cleanup_plan(job, warmups=warmups)
        _log_plan(plan, job, log)
        for item in plan.goes:
            if lease.lost.is_set():
                raise StorageError(f"another driver took {job.folder.uri}; the rest stays")
            _delete(item)
    if plan.goes:
        log(f"deleted  {_sum(plan)}")


def _check_free(folder: Storage, log: Log | None) -> None:
    """Raise LeaseHeld if a driver is alive. Does not acquire the lease, which would write."""
    held = holder(folder)
    if held is None:
        return
    if held.is_alive:
        path = folder.where(LEASE_FILE)
        raise LeaseHeld(path, held.host, held.process, held.since)
    if log is not None:
        who = f"process {held.process} on host {held.host}"
        log(f"owner    {who} is gone; taking over its lease takes half a minute")


def _log_plan(plan: CleanupPlan, job: JobFolder, log: Log) -> None:
    log(f"job      {job.name}, {job.folder.uri}: {plan.done} of {plan.cases} networks are done")
    listed = [item for item in plan.items if item.goes or item.size_bytes]
    for item in sorted(listed, key=lambda item: item.goes):
        label = "goes" if item.goes else "stays"
        log(f"{label:<8} {size_text(item.size_bytes):>9}  {item.description}")
    if not plan.goes:
        log("nothing is to be deleted")


def _sum(plan: CleanupPlan) -> str:
    return size_text(sum(item.size_bytes for item in plan.goes))


def size_text(size_bytes: int) -> str:
    """Size with a unit: 812 B, 11.4 kB, 109.0 MB."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = size_bytes / 1000
    for unit in ("kB", "MB", "GB"):
        if size < 999.95:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _delete(item: CleanupItem) -> None:
    if item.key == TEMPORARY:
        item.folder.delete_unfinished()
    elif item.key.startswith(warmup_folder("")):
        _delete_warmup(item.folder.sub(item.key))
    else:
        item.folder.delete(item.key)


def _delete_warmup(folder: Storage) -> None:
    """Delete a warm-up while holding its lease.

    The end marker is deleted first: otherwise a search could start from a partly deleted warm-up.
    """
    with Lease(folder):
        folder.delete(STAGE_END_FILE)
        for name in sorted({key.split("/")[0] for key in folder.list()} - {LEASE_FILE}):
            folder.delete(name)
