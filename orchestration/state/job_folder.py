"""Job folders given by users as paths or URIs."""

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
"""Files one of which every job folder has: written at the end, during a run, by the owner."""

LEFT = (f".{LEASE_FILE}.lock", CHECKPOINTS)
"""Files left by drivers of earlier versions that were killed in their first run."""


@dataclass(frozen=True)
class JobFolder:
    """The folder of a job within a storage."""

    storage: Storage
    name: str
    """Name of the folder; it may have been renamed since the job ran."""

    @property
    def folder(self) -> Storage:
        """Storage of the job."""
        return self.storage.sub(self.name)

    @property
    def tables(self) -> Storage:
        """Storage of the latency tables of all jobs."""
        return self.storage.sub(TABLES)

    def facts(self) -> dict[str, Any]:
        """Content of `job.json`.

        Raises:
            SpecError: no run of the job has ended yet.
        """
        facts: dict[str, Any] | None = self.folder.find_json(JOB_FILE)
        if facts is None:
            raise SpecError(
                f"{self.folder.uri} holds no job.json, which a job writes at its end; "
                f"`proxyless status {self.folder.uri}` shows its status"
            )
        return facts


def job_folder(text: str) -> JobFolder:
    """The job folder at a path or URI.

    Raises:
        SpecError: there is no job; lists the jobs below it, if any.
    """
    folder = named_folder(text)
    if not is_job(folder):
        below = jobs_in(folder)
        hint = f"; it holds the jobs {', '.join(below)}, name one" if below else ""
        raise SpecError(f"{folder.uri} holds no job; expected <storage>/<job>{hint}")
    return JobFolder(folder.parent, folder.name)


def named_folder(text: str) -> Storage:
    """The folder at a path or URI; symbolic links are resolved.

    Raises:
        SpecError: the text cannot be a folder.
    """
    try:
        is_address = "://" in text
        return Storage(text if is_address else str(Path(text).expanduser().resolve()))
    except (RuntimeError, OSError, StorageError) as error:  # ~nobody, links in a circle
        raise SpecError(f"{text}: {error}; expected <storage>/<job>") from None


def is_job(folder: Storage) -> bool:
    """Whether a folder holds a job."""
    has_left = folder.is_local and all((folder.path() / name).exists() for name in LEFT)
    return has_left or any(map(folder.exists, SIGNS))


def jobs_in(storage: Storage) -> list[str]:
    """Names of the jobs in a storage, sorted."""
    return [name for name in storage.folders() if is_job(storage.sub(name))]


def labels(folders: Sequence[JobFolder]) -> list[str]:
    """A unique label for each folder: its name, preceded by parent folders if names are equal."""
    parts = [Path(job.folder.uri).parts for job in folders]
    return [_label(own, [job for job in parts if job != own]) for own in parts]


def _label(own: Sequence[str], others: Sequence[Sequence[str]]) -> str:
    for count in range(1, len(own)):
        if all(own[-count:] != parts[-count:] for parts in others):
            return "/".join(own[-count:])
    return "/".join(own)
