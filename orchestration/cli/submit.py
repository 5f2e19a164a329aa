"""`proxyless submit`: a job is checked here, runs where Ray is, and its table comes back."""

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
    """Check what a job on this machine needs.

    Raises:
        SpecError: it cannot be done as it is.
        StorageError: its storage cannot be used.
    """
    Storage(job.storage).check_writable()
    plan = make_plan(job)
    cases_of(plan, plan.shipped)  # as far as they can be told without measuring


def submit_elsewhere(
    job: Job,
    job_file: str,
    arguments: list[str],
    address: str,
    with_aws_keys: bool,
    log: Log,
) -> int:
    """Run a job on the Ray at an address, then write its table into `<job>.csv` here.

    Images, devices and storage are those of the cluster: the driver checks them there, before
    anything is trained.

    Returns:
        Its exit code.

    Raises:
        ClusterError: that Ray cannot be reached, or does not take the job.
    """
    code = submit(job_file, arguments=arguments, address=address, with_aws_keys=with_aws_keys)
    if code in (0, 1):  # some networks are finished, it may be
        log(fetched_table(job, Path()))
    return code


def fetched_table(job: Job, into: Path) -> str:
    """Write a row for every network of a job that ran elsewhere; say where, or why it cannot be.

    What lies on the disks of a cluster is not seen from here, even if a folder of that name is.
    """
    place = f"{job.storage.rstrip('/')}/{job.name}"
    if "://" not in job.storage:
        return f"results {place}, on the machine where the driver ran"
    try:
        found = read_jobs([JobFolder(Storage(job.storage), job.name)])
    except StorageError as error:
        return f"results {place}; no table was fetched: {error}"
    rows = rows_of_jobs(found)
    if not rows:
        return f"results {place} has no finished network"
    write_rows(Storage(str(into)), job.name, rows, ".csv")
    return f"results {place}, {len(rows)} networks in {into / job.name}.csv"
