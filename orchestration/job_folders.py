"""The folder of a job, as a person names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.storage import Storage
from orchestration.spec import SpecError

SIGNS = ("job.json", "plan.json", "lease.json")
"""Files of which the folder of a job has one: it has ended, is in progress, or is owned."""

LEFT = (".lease.json.lock", "checkpoints")
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
        return self.storage.sub("tables")

    def facts(self) -> dict[str, Any]:
        """What `job.json` tells.

        Raises:
            SpecError: no run of the job has ended yet.
        """
        facts: dict[str, Any] | None = self.folder.find_json("job.json")
        if facts is None:
            raise SpecError(
                f"{self.folder.uri} holds no job.json, which a job writes at its end; "
                f"`proxyless status {self.folder.uri}` tells what it is at"
            )
        return facts


def job_folder(text: str) -> JobFolder:
    """The job folder of that path.

    Raises:
        SpecError: it holds no job; names the jobs below it, if there are any.
    """
    try:
        path = Path(text).expanduser().resolve()
    except (RuntimeError, OSError) as error:  # ~somebody who does not exist, links in a circle
        raise SpecError(f"{text}: {error}; expected <storage>/<job>") from None
    if not is_job(path):
        below = [one.name for one in jobs_in(path)]
        hint = f"; it holds the jobs {', '.join(below)}, name one" if below else ""
        raise SpecError(f"{path} holds no job; expected <storage>/<job>{hint}")
    return JobFolder(Storage(str(path.parent)), path.name)


def is_job(path: Path) -> bool:
    """Whether a folder is that of a job."""
    has_left = all((path / name).exists() for name in LEFT)
    return has_left or any((path / name).is_file() for name in SIGNS)


def jobs_in(path: Path) -> list[Path]:
    """Folders of jobs in a storage, sorted."""
    found = path.iterdir() if path.is_dir() else ()
    return sorted(one for one in found if is_job(one))


def labels(folders: Sequence[JobFolder]) -> list[str]:
    """A name for each: that of its folder, with the folders around it where others are equal."""
    parts = [Path(one.folder.uri).parts for one in folders]
    return [_label(own, [one for one in parts if one != own]) for own in parts]


def _label(own: Sequence[str], others: Sequence[Sequence[str]]) -> str:
    for count in range(1, len(own)):
        if all(own[-count:] != one[-count:] for one in others):
            return "/".join(own[-count:])
    return "/".join(own)
