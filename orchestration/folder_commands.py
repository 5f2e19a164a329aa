"""Commands about what a storage holds: `compare`, `show`, `status`, `clean`.

None of them needs torch, Ray or MLflow.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer
from typer import echo

from orchestration.spec import SpecError

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="<storage>/<job>")]


def register(app: typer.Typer) -> None:
    """Add them to the commands of an app."""
    app.command("status")(status)
    app.command("clean")(clean)


def status(folder: Folder) -> None:
    """Say what a job is at: its driver, how far its cases are, what is left. Nothing is touched."""
    from orchestration.job_folders import job_folder
    from orchestration.status import job_status
    from orchestration.status_text import status_lines

    job = job_folder(folder)
    found = job_status(job.storage, job.name)
    for line in status_lines(found, job.name, job.folder.uri, time.time()):
        echo(line)


def clean(
    folder: Folder,
    is_sure: Annotated[bool, typer.Option("--yes", help="Delete what goes.")] = False,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, as without --yes.")
    ] = False,
    warmups: Annotated[
        bool,
        typer.Option(
            "--warmups", help="Its warm-ups and shared searches too, if nobody needs them."
        ),
    ] = False,
) -> None:
    """Say what a job no longer needs, with sizes, and delete it with --yes.

    Results, models, tables and comparison stay, and so do checkpoints of what is not finished.
    """
    from orchestration import clean as cleaning
    from orchestration.job_folders import job_folder

    if is_sure and is_dry:
        raise SpecError("--yes deletes and --dry-run does not; leave one of them out")
    cleaning.clean(job_folder(folder), echo, is_sure=is_sure, warmups=warmups)
