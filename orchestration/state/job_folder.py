"""The folder of a job, as a person names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.lease import LEASE_FILE
from cluster.storage import Storage, StorageError
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import CHECKPOINTS, JOB_FILE, PLAN_FILE, TABLES

SIGNS = (JOB_FILE, PLAN_FILE, LEASE_FILE)
"""Files of which the folder of a job has one: it has ended, is in progress, or is owned."""

LEFT = (f".{LEASE_FILE}.lock", CHECKPOINTS)
"""What a driver of an earlier version has left that was killed in its first run."""


@dataclass(frozen=True)
class JobFolder:
    """A folder with a job in it, and the storage that it lies in."""

    storage: Storage
    name: str
    """Of the folder; the job may have had another when it ran."""

    @property
    def folder(self) -> Storage:
        """The job's."""
        return self.storage.sub(self.name)

    @property
    def tables(self) -> Storage:
        """Where the latency tables of all jobs lie."""
        return self.storage.sub(TABLES)

    def facts(self) -> dict[str, Any]:
        """What `job.json` tells.

        Raises:
            SpecError: no run of the job has ended yet.
        """
        facts: dict[str, Any] | None = self.folder.find_json(JOB_FILE)
        if facts is None:
            raise SpecError(
                f"{self.folder.uri} holds no job.json, which a job writes at its end; "
                f"`proxyless status {self.folder.uri}` tells what it is at"
            )
        return facts


def job_folder(text: str) -> JobFolder:
    """The job folder of that path or address.

    Raises:
        SpecError: it holds no job; names the jobs below it, if there are any.
    """
    folder = named_folder(text)
    if not is_job(folder):
        below = jobs_in(folder)
        hint = f"; it holds the jobs {', '.join(below)}, name one" if below else ""
        raise SpecError(f"{folder.uri} holds no job; expected <storage>/<job>{hint}")
    return JobFolder(folder.parent, folder.name)


def named_folder(text: str) -> Storage:
    """What a person calls by a path or an address; links are followed.

    Raises:
        SpecError: it can be no folder.
    """
    try:
        is_address = "://" in text
        return Storage(text if is_address else str(Path(text).expanduser().resolve()))
    except (RuntimeError, OSError, StorageError) as error:  # ~nobody, links in a circle
        raise SpecError(f"{text}: {error}; expected <storage>/<job>") from None


def is_job(folder: Storage) -> bool:
    """Whether a folder is that of a job."""
    has_left = folder.is_local and all((folder.path() / name).exists() for name in LEFT)
    return has_left or any(map(folder.exists, SIGNS))


def jobs_in(storage: Storage) -> list[str]:
    """Names of the jobs in a storage, sorted."""
    return [name for name in storage.folders() if is_job(storage.sub(name))]


def labels(folders: Sequence[JobFolder]) -> list[str]:
    """A name for each: that of its folder, with the folders around it where others are equal."""
    parts = [Path(one.folder.uri).parts for one in folders]
    return [_label(own, [one for one in parts if one != own]) for own in parts]


def _label(own: Sequence[str], others: Sequence[Sequence[str]]) -> str:
    for count in range(1, len(own)):
        if all(own[-count:] != one[-count:] for one in others):
            return "/".join(own[-count:])
    return "/".join(own)
