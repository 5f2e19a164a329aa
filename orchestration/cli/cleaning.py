"""Delete what a job no longer needs, as the owner of its folder, and say what stays."""

from __future__ import annotations

from cluster.lease import Lease, LeaseHeld, holder
from cluster.storage import Storage, StorageError
from orchestration.cli.clean import LEASE, TEMPORARY, Item, Survey, survey
from orchestration.driver.progress import Say
from orchestration.state.job_folder import JobFolder
from orchestration.state.stage_end import END


def clean(job: JobFolder, say: Say, *, is_sure: bool = False, warmups: bool = False) -> None:
    """Say what stays and what goes; delete the latter if `is_sure`.

    Args:
        job: whose folder.
        say: takes lines for a person.
        is_sure: whether to delete.
        warmups: whether warm-ups and shared searches go too, where nobody needs them.

    Raises:
        LeaseHeld: a driver owns the folder; nothing was deleted.
        StorageError: something cannot be read or deleted.
    """
    _check_free(job.folder, say if is_sure else None)
    if not is_sure:
        found = survey(job, warmups=warmups)
        _say(found, job, say)
        if found.goes:
            say(f"nothing was deleted; with --yes {_sum(found)} would be")
        return
    with Lease(job.folder) as lease:
        found = survey(job, warmups=warmups)
        _say(found, job, say)
        for item in found.goes:
            if lease.lost.is_set():
                raise StorageError(f"another driver took {job.folder.uri}; the rest stays")
            _delete(item)
    if found.goes:
        say(f"deleted  {_sum(found)}")


def _check_free(folder: Storage, say: Say | None) -> None:
    """Refuse where a driver lives, without asking for the lease, which would write."""
    held = holder(folder)
    if held is None:
        return
    if held.is_alive:
        path = folder.where(LEASE)
        raise LeaseHeld(path, held.host, held.process, held.since)
    if say is not None:
        who = f"process {held.process} on host {held.host}"
        say(f"owner    {who} is gone; to make sure of that takes half a minute")


def _say(found: Survey, job: JobFolder, say: Say) -> None:
    say(f"job      {job.name}, {job.folder.uri}: {found.done} of {found.cases} networks are done")
    told = [item for item in found.items if item.goes or item.size_bytes]
    for item in sorted(told, key=lambda item: item.goes):
        label = "goes" if item.goes else "stays"
        say(f"{label:<8} {size_text(item.size_bytes):>9}  {item.words}")
    if not found.goes:
        say("nothing is to be deleted")


def _sum(found: Survey) -> str:
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


def _delete(item: Item) -> None:
    if item.place == TEMPORARY:
        item.folder.delete_unfinished()
    elif item.place.startswith("warmups/"):
        _delete_warmup(item.folder.sub(item.place))
    else:
        item.folder.delete(item.place)


def _delete_warmup(folder: Storage) -> None:
    """As its owner; what says that it is whole goes first, or a search might begin with a part."""
    with Lease(folder):
        folder.delete(END)
        for name in sorted({key.split("/")[0] for key in folder.list()} - {LEASE}):
            folder.delete(name)
