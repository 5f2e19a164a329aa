"""`proxyless submit`: check a job here, run it on a Ray cluster, fetch its results table."""

from __future__ import annotations

from pathlib import Path

from cluster.storage import Storage, StorageError
from cluster.submit import submit
from orchestration.config.job import Job
from orchestration.driver.progress import Log
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import make_plan
from orchestration.reports.jobs_table import read_jobs, rows_of_jobs
from orchestration.reports.row_files import write_rows
from orchestration.state.job_folder import JobFolder


def check_here(job: Job) -> None:
    """Check a job that will run on this machine.

    Raises:
        SpecError: the job cannot be run as it is.
        StorageError: its storage cannot be used.
    """
    Storage(job.storage).check_writable()
    plan = make_plan(job)
    cases_of(plan, plan.shipped)  # raises; cases that need a measured table are skipped


def submit_elsewhere(
    job: Job,
    job_file: str,
    arguments: list[str],
    address: str,
    with_aws_keys: bool,
    log: Log,
) -> int:
    """Run a job on the Ray cluster at `address`, then write its results to `<job>.csv` here.

    Images, devices and storage are those of the cluster: the driver checks them there, before
    anything is trained.

    Returns:
        Exit code of the job.

    Raises:
        ClusterError: the cluster cannot be reached, or refuses the job.
    """
    code = submit(job_file, arguments=arguments, address=address, with_aws_keys=with_aws_keys)
    if code in (0, 1):  # some networks may be finished
        log(fetched_table(job, Path()))
    return code


def fetched_table(job: Job, into: Path) -> str:
    """Write a row for every network of a job that ran on a cluster.

    A local path in `job.storage` is on the disk of the driver's machine and cannot be read from
    here, even if a folder of the same name exists.

    Returns:
        A line that says where the table is, or why there is none.
    """
    path = f"{job.storage.rstrip('/')}/{job.name}"
    if "://" not in job.storage:
        return f"results {path}, on the machine where the driver ran"
    try:
        results = read_jobs([JobFolder(Storage(job.storage), job.name)])
    except StorageError as error:
        return f"results {path}; no table was fetched: {error}"
    rows = rows_of_jobs(results)
    if not rows:
        return f"results {path} has no finished network"
    write_rows(Storage(str(into)), job.name, rows, ".csv")
    return f"results {path}, {len(rows)} networks in {into / job.name}.csv"
