"""What in the folder of a job is no longer needed, and what is.

Results, models and comparison are. Checkpoints are not once their case is finished, nor is what Ray
Tune and Ray Train keep of a run: a finished job is recognised by its results alone. Warm-ups and
shared searches are where other jobs and further budgets begin: they go only where that is asked,
and where no case that is not finished needs them.
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
from orchestration.planning.cases import Case
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


@dataclass(frozen=True)
class CleanupItem:
    """Something in storage."""

    words: str
    """What it is, and why it stays or goes."""
    goes: bool
    size_bytes: int
    folder: Storage
    place: str
    """Its key in the folder, or TEMPORARY."""


@dataclass(frozen=True)
class CleanupPlan:
    """What there is of a job."""

    done: int
    """Finished cases."""
    cases: int
    items: tuple[CleanupItem, ...]

    @property
    def goes(self) -> list[CleanupItem]:
        """What is no longer needed."""
        return [item for item in self.items if item.goes]


def cleanup_plan(job: JobFolder, *, warmups: bool = False) -> CleanupPlan:
    """What of a job stays and what goes; with `warmups`, where others begin too.

    Raises:
        StorageError: what the job is cannot be read.
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
    """What lies in the folder beside checkpoints."""
    keys = folder.list()
    names = {key.split("/")[0] for key in keys}
    for name in sorted(names - {*ONE_BY_ONE, LEASE_FILE}):
        shown = name if name in keys else f"{name}/"
        words = f"{shown}: {KNOWN[name]}" if name in KNOWN else shown
        yield _item(words, name in RAYS, folder, name)


def _checkpoints(plan: JobPlan, folder: Storage) -> Iterator[CleanupItem]:
    """Those of each case."""
    for name in _below(folder, CHECKPOINTS):
        why, goes = _of_case(name, plan, folder)
        place = f"{CHECKPOINTS}/{name}"
        yield _item(f"{place}/: {why}", goes, folder, place)


def _of_case(name: str, plan: JobPlan, folder: Storage) -> tuple[str, bool]:
    """Why the checkpoints in a folder of this name stay or go."""
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
    """What killed writers have left."""
    size_bytes = folder.unfinished_bytes()
    if size_bytes:
        yield CleanupItem("temporary files of killed writers", True, size_bytes, folder, TEMPORARY)


def _searches(plan: JobPlan, folder: Storage, *, warmups: bool) -> Iterator[CleanupItem]:
    """Those that several budgets share."""
    needed = {case.search_key: case.name for case in _undone(plan, folder)}
    for key in _below(folder, SEARCHES):
        place, is_needed = search_folder(key), key in needed or not plan.is_complete
        why = "further budgets begin there; --warmups deletes it"
        if warmups:
            why = "all its budgets are finished"
        if is_needed:
            why = f"{needed.get(key, 'the job')} is not finished"
        yield _item(f"{place}/: {why}", warmups and not is_needed, folder, place)


def _warmups(plan: JobPlan, job: JobFolder, *, warmups: bool) -> Iterator[CleanupItem]:
    """Those that cases of the job start from."""
    for key in sorted({case.warmup_key for case in plan.cases if case.warmup_key is not None}):
        place = warmup_folder(key)
        if not _below(job.storage, place):
            continue
        why, needed = "for other jobs too; --warmups deletes it", ""
        if warmups:
            needed = _needed_by(key, plan, job)
            why = needed or "all cases that start from it are finished"
        goes = warmups and not needed
        yield _item(f"../{place}/: {why}", goes, job.storage, place)


def _tables(plan: JobPlan, job: JobFolder) -> Iterator[CleanupItem]:
    """The latency tables of the job, which never go."""
    keys = {case.table_key for case in plan.cases}
    there = [table_name(key) for key in sorted(keys) if key and job.tables.exists(table_name(key))]
    if there:
        size_bytes = sum(job.tables.size_bytes(place) for place in there)
        words = f"../{TABLES}/: {len(there)} latency tables, for other jobs too"
        yield CleanupItem(words, False, size_bytes, job.tables, "")


def _needed_by(key: str, plan: JobPlan, job: JobFolder) -> str:
    """Why a warm-up has to stay; empty if nobody needs it."""
    if not plan.is_complete or key in _starts(plan, job.folder):
        return "a case of this job is not finished"
    if is_owned(job.storage.sub(warmup_folder(key))):
        return "it is being trained"
    for name in jobs_in(job.storage):
        if name != job.name and _needs(job.storage.sub(name), key):
            return f"the job {name} is not finished"
    return ""


def _needs(folder: Storage, key: str) -> bool:
    """Whether a job may still start from a warm-up; one that cannot be read might."""
    try:
        plan = read_plan(folder)
        return is_owned(folder) or key in _starts(plan, folder)
    except StorageError:
        return True


def _starts(plan: JobPlan, folder: Storage) -> set[str | None]:
    """Keys of the warm-ups of cases that are not finished."""
    return {case.warmup_key for case in _undone(plan, folder)}


def _undone(plan: JobPlan, folder: Storage) -> list[Case]:
    stopped = stopped_searches(plan, folder)
    return [one for one in plan.cases if not is_done(one, folder) and one.key not in stopped]


def is_owned(folder: Storage) -> bool:
    """Whether somebody who lives owns a folder."""
    held = holder(folder)
    return held is not None and held.is_alive


def _below(folder: Storage, place: str) -> list[str]:
    """Names of the folders in a folder that are not empty."""
    keys = (key.removeprefix(f"{place}/") for key in folder.list(place))
    return sorted({key.split("/")[0] for key in keys if "/" in key})


def _item(words: str, goes: bool, folder: Storage, place: str) -> CleanupItem:
    return CleanupItem(words, goes, folder.size_bytes(place), folder, place)


def clean(job: JobFolder, log: Log, *, is_sure: bool = False, warmups: bool = False) -> None:
    """Say what stays and what goes; delete the latter if `is_sure`.

    Args:
        job: whose folder.
        log: takes lines for a person.
        is_sure: whether to delete.
        warmups: whether warm-ups and shared searches go too, where nobody needs them.

    Raises:
        LeaseHeld: a driver owns the folder; nothing was deleted.
        StorageError: something cannot be read or deleted.
    """
    _check_free(job.folder, log if is_sure else None)
    if not is_sure:
        found = cleanup_plan(job, warmups=warmups)
        _say(found, job, log)
        if found.goes:
            log(f"nothing was deleted; with --yes {_sum(found)} would be")
        return
    with Lease(job.folder) as lease:
        found = cleanup_plan(job, warmups=warmups)
        _say(found, job, log)
        for item in found.goes:
            if lease.lost.is_set():
                raise StorageError(f"another driver took {job.folder.uri}; the rest stays")
            _delete(item)
    if found.goes:
        log(f"deleted  {_sum(found)}")


def _check_free(folder: Storage, log: Log | None) -> None:
    """Refuse where a driver lives, without asking for the lease, which would write."""
    held = holder(folder)
    if held is None:
        return
    if held.is_alive:
        path = folder.where(LEASE_FILE)
        raise LeaseHeld(path, held.host, held.process, held.since)
    if log is not None:
        who = f"process {held.process} on host {held.host}"
        log(f"owner    {who} is gone; to make sure of that takes half a minute")


def _say(found: CleanupPlan, job: JobFolder, log: Log) -> None:
    log(f"job      {job.name}, {job.folder.uri}: {found.done} of {found.cases} networks are done")
    told = [item for item in found.items if item.goes or item.size_bytes]
    for item in sorted(told, key=lambda item: item.goes):
        label = "goes" if item.goes else "stays"
        log(f"{label:<8} {size_text(item.size_bytes):>9}  {item.words}")
    if not found.goes:
        log("nothing is to be deleted")


def _sum(found: CleanupPlan) -> str:
    return size_text(sum(item.size_bytes for item in found.goes))


def size_text(size_bytes: int) -> str:
    """For people: 812 B, 11.4 kB, 109.0 MB."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = size_bytes / 1000
    for unit in ("kB", "MB", "GB"):
        if size < 999.95:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _delete(item: CleanupItem) -> None:
    if item.place == TEMPORARY:
        item.folder.delete_unfinished()
    elif item.place.startswith(warmup_folder("")):
        _delete_warmup(item.folder.sub(item.place))
    else:
        item.folder.delete(item.place)


def _delete_warmup(folder: Storage) -> None:
    """As its owner; what says that it is whole goes first, or a search might begin with a part."""
    with Lease(folder):
        folder.delete(STAGE_END_FILE)
        for name in sorted({key.split("/")[0] for key in folder.list()} - {LEASE_FILE}):
            folder.delete(name)
