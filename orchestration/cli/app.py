"""The command line: `python -m orchestration JOB.yaml` and the commands of `proxyless`.

Exit codes:
    0: done.
    1: a case failed, or `record` or `predict` did.
    2: the job is invalid, owned by another driver, or its storage fails; finished results are kept.
    130: stopped; the same command resumes the job.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.jobs_api import ClusterError
from cluster.lease import LeaseHeld
from cluster.storage import HOME, Storage, StorageError
from orchestration.cli import data, jobs
from orchestration.config.job import Job
from orchestration.config.loading import SpecError, apply_override, check, check_job, load_job
from orchestration.config.storage_layout import JOB_FILE
from orchestration.driver.progress import progress_bar

DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 130

HELP = """Hardware-aware architecture search.

`python -m orchestration JOB.yaml` is short for `run JOB.yaml`.
"""

app = typer.Typer(
    help=HELP, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)
JobFile = Annotated[str, typer.Argument(metavar="JOB.yaml", help="A job file; see jobs/.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Replace one setting of the job file."),
]

Quick = Annotated[
    bool,
    typer.Option("--quick", help="With a plan: use only what is in storage; measure nothing."),
]


@app.command("run")
def run_job(
    job_file: JobFile,
    overrides: Overrides = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show what would be done; see `plan`.")
    ] = False,
    is_quick: Quick = False,
) -> None:
    """Run a job, or resume one that was stopped."""
    job = load_job(job_file, overrides or [])
    with _about(job_file):
        if plan:
            _show_plan(job, is_quick)
            return
        if is_quick:
            raise SpecError("--quick belongs to --plan; add that, or leave it out to run the job")
        from orchestration.driver.pipeline import run

        # The file alone does not describe the job if settings were overridden.
        text = "" if overrides else Path(job_file).read_text(encoding="utf-8")
        result = run(job, job_file=text, log=log)
    if result.failed:
        raise typer.Exit(FAILED)


@app.command("plan")
def plan_job(job_file: JobFile, overrides: Overrides = None, is_quick: Quick = False) -> None:
    """Show what a job would do, need and cost, without training it.

    Missing latency tables are measured, since the job needs them anyway, and a few steps of each
    phase are timed on the cluster.
    """
    job = load_job(job_file, overrides or [])
    with _about(job_file):
        _show_plan(job, is_quick)


def _show_plan(job: Job, is_quick: bool) -> None:
    from orchestration.driver.pipeline import show_plan

    show_plan(job, log, is_quick=is_quick)


@app.command("submit")
def submit_job(
    job_file: JobFile,
    overrides: Overrides = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="http://HOST:8265", help="Dashboard of a remote Ray cluster."),
    ] = None,
    aws_credentials: Annotated[
        bool,
        typer.Option("--aws-credentials", help="With --address: pass AWS keys to the job."),
    ] = False,
) -> None:
    """Check a job and submit it to a Ray cluster: running here, started for it, or remote."""
    from cluster.submit import submit
    from orchestration.cli.submit import check_here, submit_elsewhere

    job = load_job(job_file, overrides or [])
    set_args = [arg for override in overrides or [] for arg in ("--set", override)]
    if address is not None:
        raise typer.Exit(submit_elsewhere(job, job_file, set_args, address, aws_credentials, log))
    if aws_credentials:
        raise SpecError("--aws-credentials belongs to --address; add that, or leave it out")
    with _about(job_file):
        check_here(job)
    raise typer.Exit(submit(job_file, arguments=set_args))


@app.command("measure")
def measure_target(
    target: Annotated[str, typer.Option(help="Name of the target: cpu, gpu, mobile, or your own.")],
    space: Annotated[str, typer.Option(help="Name of the space.")] = "proxyless_imagenet",
    import_file: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="A file of latencies measured elsewhere."),
    ] = None,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="Measure this host if no phone is attached.")
    ] = False,
    storage: Annotated[str, typer.Option(help="Storage that holds the tables.")] = HOME,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="For example resolution=160 or targets.cpu.threads=2.",
        ),
    ] = None,
) -> None:
    """Measure the latency table of a target, or read one from a file (CSV, YAML, JSON)."""
    from orchestration.cli.measure import (
        MeasureJob,
        imported,
        keep_picture_and_record,
        measure,
        table_lines,
    )

    targets: dict[str, Any] = {target: {"stand_in": True}} if stand_in else {}
    if import_file is not None:
        targets = {target: {"table": str(import_file)}}
    values: dict[str, Any] = {"target": target, "space": {"name": space}, "targets": targets}
    values["storage"] = storage
    for override in overrides or []:
        apply_override(values, override)
    job = check(MeasureJob, values, "measure")
    if import_file is not None:
        measured = imported(job, import_file)
    else:
        with progress_bar() as progress:
            measured = measure(job, log, progress)
    for line in [
        *table_lines(measured, Storage(job.storage)),
        *keep_picture_and_record(measured, Storage(job.storage)),
    ]:
        log(line)


@app.command("record")
def record(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="<storage>/<job>")],
) -> None:
    """Write the results of a job to MLflow. Runs that are complete there are left alone."""
    from orchestration.driver.pipeline import tracking_uri
    from orchestration.state.job_folder import job_folder
    from orchestration.tracking import RecordError, record_job

    stored = job_folder(folder)
    job = check_job(stored.facts()["settings"], f"{folder}/{JOB_FILE}")
    try:
        links = record_job(
            stored.folder,
            stored.tables,
            tracking_uri=tracking_uri(job, stored.storage),
            experiment=job.experiment,
            patience_s=job.record.patience_s,
        )
    except RecordError as error:
        print(f"not recorded: {error}; the same command continues", file=sys.stderr, flush=True)
        raise typer.Exit(FAILED) from None
    for link in (links.report, links.runs, links.compare):
        log(link)


jobs.register(app)
app.add_typer(data.app, name="data")


@app.command("predict")
def predict_images(
    model: Annotated[str, typer.Argument(help="models:/NAME@best, models:/NAME/1 or a folder.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    storage: Annotated[
        str,
        typer.Option(help="Storage with the MLflow database, unless MLFLOW_TRACKING_URI is set."),
    ] = HOME,
) -> None:
    """Classify image files with a recorded network."""
    from orchestration.cli.predict import predict

    try:
        with tempfile.TemporaryDirectory() as temporary:
            predictions = predict(_model_folder(model, storage, Path(temporary)), images)
    except ValueError as error:
        raise SpecError(str(error)) from None
    for prediction in predictions:
        log(prediction.line())
    if any(prediction.error for prediction in predictions):
        raise typer.Exit(FAILED)


def _model_folder(model: str, storage: str, temporary: Path) -> Path:
    if not model.startswith(("models:/", "runs:/")):
        return Path(model)
    from orchestration.driver.pipeline import tracking_uri
    from orchestration.tracking import RecordError, fetch_model

    try:
        return fetch_model(model, tracking_uri(None, Storage(storage)), temporary)
    except RecordError as error:
        raise SpecError(str(error)) from None


@contextmanager
def _about(job_file: str) -> Iterator[None]:
    """Prefix errors with the job file; say how to resume a job that is stopped."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr, flush=True)
        raise typer.Exit(STOPPED) from None
    except LeaseHeld:
        raise
    except (SpecError, StorageError) as error:
        raise SpecError(f"{job_file}: {error}") from None


def log(line: str) -> None:
    """Print a line and flush it."""
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run a command. A first argument that is not a command is a job file.

    Returns:
        The exit code.
    """
    args = sys.argv[1:] if arguments is None else arguments
    commands = {command.name for command in app.registered_commands} | {"data"}
    if args and args[0] not in commands and not args[0].startswith("-"):
        args = ["run", *args]
    signal.signal(signal.SIGTERM, _stop)
    try:
        app(args, standalone_mode=True)
    except SystemExit as end:
        return int(end.code or 0) if not isinstance(end.code, str) else WRONG
    except (SpecError, StorageError, ClusterError) as error:
        print(str(error).replace("\n", " "), file=sys.stderr, flush=True)
        return WRONG
    return DONE


def _stop(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt
