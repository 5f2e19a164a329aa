"""Commands about what a storage holds: `compare`, `show`, `status`, `clean`.

None of them needs torch, Ray or MLflow.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer
from typer import echo

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="<storage>/<job>")]


def register(app: typer.Typer) -> None:
    """Add them to the commands of an app."""
    app.command("status")(status)


def status(folder: Folder) -> None:
    """Say what a job is at: its driver, how far its cases are, what is left. Nothing is touched."""
    from orchestration.job_folders import job_folder
    from orchestration.status import job_status
    from orchestration.status_text import status_lines

    job = job_folder(folder)
    found = job_status(job.storage, job.name)
    for line in status_lines(found, job.name, job.folder.uri, time.time()):
        echo(line)
