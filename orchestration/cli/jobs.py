"""Commands that read storage: `compare`, `show`, `status` and `clean`.

None of them imports torch, Ray or MLflow.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from typer import echo

from cluster.lease import holder
from cluster.storage import Storage
from orchestration.config.loading import SpecError

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="<storage>/<job>")]


def register(app: typer.Typer) -> None:
    """Add the commands to a Typer app."""
    app.command("compare")(compare)
    app.command("show")(show)
    app.command("status")(status)
    app.command("clean")(clean)


def compare(
    folders: Annotated[
        list[str], typer.Argument(metavar="FOLDER", help="<storage>/<job>, one or several.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="All networks in one file: .csv, .parquet or .json."),
    ] = None,
) -> None:
    """Print the results of one or several jobs side by side and update their comparison files."""
    from orchestration.reports.comparison import write_comparison
    from orchestration.reports.jobs_table import comparison_of_jobs, read_jobs, rows_of_jobs
    from orchestration.reports.row_files import check_path, write_rows
    from orchestration.reports.table import print_comparison
    from orchestration.state.job_folder import job_folder

    if out is not None:
        check_path(out)
    jobs = list({job.folder.uri: job for job in map(job_folder, folders)}.values())
    results = read_jobs(jobs)
    for job in jobs:
        driver = holder(job.folder)
        if driver is None or not driver.is_alive:  # a live driver writes it itself
            write_comparison(job.folder, job.tables)
    if len(results) == 1:
        print_comparison(results[0].results)
    else:
        echo(comparison_of_jobs(results))
    for job_results in results:
        if not job_results.results:
            echo(f"{job_results.folder} has no finished network yet")
    if out is not None:
        write_rows(Storage(str(out.parent)), out.stem, rows_of_jobs(results), out.suffix)
        echo(f"{sum(len(job.results) for job in results)} networks in {out}")


def show(
    network: Annotated[
        str,
        typer.Argument(
            metavar="ARCHITECTURE.json",
            help="Or a result.json, the folder of a case, or a published name.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(help="Show latencies on this target. Default: where the result was measured."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Storage with latency tables. Default: that of the case, else ~/proxyless."
        ),
    ] = None,
) -> None:
    """Draw a network: the op at every site and its latency, from a stored latency table."""
    from orchestration.cli.named_network import named_network
    from orchestration.cli.show import paint, shown_lines

    paint(shown_lines(named_network(network), target, storage))


def status(folder: Folder) -> None:
    """Show the state of a job: its driver, the progress of its cases, what is left. Read-only."""
    from orchestration.reports.status import job_status
    from orchestration.reports.status_text import status_lines
    from orchestration.state.job_folder import job_folder

    job = job_folder(folder)
    state = job_status(job.storage, job.name)
    for line in status_lines(state, job.name, job.folder.uri, time.time()):
        echo(line)


def clean(
    folder: Folder,
    is_sure: Annotated[
        bool, typer.Option("--yes", help="Delete what is no longer needed.")
    ] = False,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be deleted (the default).")
    ] = False,
    warmups: Annotated[
        bool,
        typer.Option(
            "--warmups", help="Include warm-ups and shared searches that no unfinished case needs."
        ),
    ] = False,
) -> None:
    """List files that a job no longer needs, with sizes; delete them with --yes.

    Results, models, tables, the comparison and checkpoints of unfinished cases are never deleted.
    """
    from orchestration.cli.clean import clean as clean_job
    from orchestration.state.job_folder import job_folder

    if is_sure and is_dry:
        raise SpecError("--yes deletes and --dry-run does not; leave one of them out")
    clean_job(job_folder(folder), echo, is_sure=is_sure, warmups=warmups)
