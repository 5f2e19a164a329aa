"""Submit a job to Ray and follow it until it ends; used by `make search`.

The job runs on a remote Ray cluster if an address is given, else on the running local one. If none
is running, a local cluster is started for the job and stopped afterwards.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cluster.head import LocalHead, client_environment, stop_signals_to
from cluster.jobs_api import ClusterError, JobsApi, JobState, running_head
from cluster.remote import auth_mode, check_reachable, checked_address, is_in_the_clear, s3_names

STOPPED = 130
"""Exit code of a job that was stopped; the same command resumes it."""

FORWARDED = tuple(f"MLFLOW_TRACKING_{end}" for end in ("URI", "USERNAME", "PASSWORD", "TOKEN"))
"""Environment variables that are passed on to a job. Some are secret: they are passed in a private
file, since command lines are visible to all users.
"""

TOKEN = {"RAY_AUTH_MODE": "token"}
"""Environment that makes Ray's client send the token of a local cluster."""

REMOTE_TIMEOUT_S = 30.0
"""Time limit of each request to a remote cluster."""

POLL_S = 0.3
"""Interval between two requests for the state and output of a job."""

ANSWER_TIMEOUT_S = 60.0
"""Time for which Ray may fail to answer while a job runs, e.g. because the machine is busy."""

PREAMBLE = re.compile(
    r"^.* -- Runtime env is setting up\.\n|^Running entrypoint for job .*\n", re.M
)
"""Lines that Ray adds to the output of each job."""


def submit(
    job_file: str | Path,
    working_dir: str | Path = ".",
    arguments: Sequence[str] = (),
    *,
    address: str | None = None,
    with_aws_keys: bool = False,
    stop_wait_s: int = 60,
) -> int:
    """Run `job_file` as a Ray job and copy its output to stdout.

    Ctrl-C and SIGTERM stop the job. It has `stop_wait_s` seconds to finish its writes.

    Args:
        job_file: an executable file inside `working_dir`.
        working_dir: folder to upload to the cluster, except for files that `.gitignore` excludes.
        arguments: arguments for the job file.
        address: dashboard of a remote cluster. None: the running local cluster, or a new one.
        with_aws_keys: whether to pass on the S3 keys of this environment to a remote cluster.
        stop_wait_s: seconds between SIGTERM and SIGKILL when the job is stopped.

    Returns:
        The exit code of the job; 130 if it was stopped.

    Raises:
        ClusterError: Ray cannot be reached or started, or rejects the job.
    """
    folder = Path(working_dir).resolve()
    command = [_entry_point(Path(job_file), folder), *arguments]
    variables = FORWARDED if address is None else FORWARDED + s3_names(with_aws_keys)
    submission = _Submission(
        _submission_id(Path(job_file)), folder, command, variables, stop_wait_s
    )
    with stop_signals_to(_interrupt):
        try:
            if address is not None:
                return _run_remotely(checked_address(address), submission)
            with _head(folder) as local_address:
                return _run(JobsApi(local_address), submission)
        except KeyboardInterrupt:
            return STOPPED


@dataclass(frozen=True)
class _Submission:
    """A job to submit."""

    job: str
    """Submission ID."""
    folder: Path
    command: Sequence[str]
    variables: Sequence[str]
    """Environment variables that are passed on if they are set."""
    stop_wait_s: int


def _submission_id(job_file: Path) -> str:
    """A unique submission ID of letters, digits and '_.-' only, since it is used in URLs."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", job_file.stem)
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"


def _entry_point(job_file: Path, folder: Path) -> str:
    path = (folder / job_file).resolve()
    if not path.is_relative_to(folder):
        raise ClusterError(f"{job_file} is not in {folder}, and only that folder is sent to Ray")
    if not path.is_file():
        raise ClusterError(f"{job_file} does not exist in {folder}")
    if not os.access(path, os.X_OK):
        raise ClusterError(f"{job_file} is not executable; run: chmod +x {shlex.quote(str(path))}")
    return f"./{path.relative_to(folder)}"


@contextmanager
def _head(folder: Path) -> Iterator[str]:
    """Address of the running Ray cluster, or of one that is stopped when the context exits."""
    address = running_head()
    if address:
        yield address
        return
    _print("starting Ray ...")
    with LocalHead(folder) as head:
        _print(f"Ray dashboard: {head.address}")
        yield head.address


def _run_remotely(address: str, submission: _Submission) -> int:
    if is_in_the_clear(address):
        _print(
            f"WARNING {address} is not encrypted: others on the way can read the token; "
            "use https://, or a tunnel to 127.0.0.1"
        )
    check_reachable(address)
    _print(f"submitting {submission.job} to the Ray cluster at {address}")
    command = f"ray job logs --address {shlex.quote(address)} --follow {submission.job}"
    api = JobsApi(address, timeout_s=REMOTE_TIMEOUT_S)
    return _run(api, submission, auth_mode(), lost=f"; the job keeps running there: {command}")


def _run(
    api: JobsApi, submission: _Submission, auth: Mapping[str, str] = TOKEN, lost: str = ""
) -> int:
    """Run a job and return its exit code.

    `lost` is appended to the error if the connection is lost while the job runs.
    """
    output = _Output()
    try:
        _submit(api.address, submission, auth)
        try:
            state = _follow(api, submission.job, output)
        except ClusterError as error:
            raise ClusterError(f"{error}{lost}") from error
    except KeyboardInterrupt:
        _print("stopping the job ...")
        state = _stop(api, submission.job, output, submission.stop_wait_s)
    return _exit_code(state)


def _submit(address: str, submission: _Submission, auth: Mapping[str, str] = TOKEN) -> None:
    forwarded = {name: os.environ[name] for name in submission.variables if name in os.environ}
    environment = {
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(submission.stop_wait_s), **forwarded}
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:  # readable by this user only
        json.dump(environment, file)
        file.flush()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--no-wait"),
                *("--submission-id", submission.job, "--working-dir", "."),
                *("--runtime-env", file.name, "--", *submission.command),
            ],
            cwd=submission.folder,
            env={**client_environment(address), **auth},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # So that Ctrl-C reaches this process only.
        )
    if done.returncode:
        raise ClusterError(f"Ray refused the job:\n{done.stdout[-2000:].strip()}")


def _follow(api: JobsApi, job: str, output: _Output, timeout_s: float = float("inf")) -> JobState:
    """Copy the output of a job until it ends, or until the timeout."""
    end = time.monotonic() + timeout_s
    last_answer = time.monotonic()
    while True:
        try:
            # The state is read first: logs read after the job has ended are complete.
            state = api.state(job)
            output.show(api.logs(job), is_complete=state.has_ended)
            last_answer = time.monotonic()
            if state.has_ended or last_answer > end:
                return state
        except ClusterError:
            if time.monotonic() > min(end, last_answer + ANSWER_TIMEOUT_S):
                raise
        time.sleep(POLL_S)


def _stop(api: JobsApi, job: str, output: _Output, stop_wait_s: int) -> JobState:
    try:
        api.stop(job)
        return _follow(api, job, output, timeout_s=stop_wait_s + 5)
    except ClusterError as error:  # The job was not submitted yet, or Ray has stopped.
        return JobState(status="STOPPED", message=str(error), exit_code=None)


def _exit_code(state: JobState) -> int:
    if state.status == "SUCCEEDED":
        return 0
    if state.status != "FAILED":
        return STOPPED
    if state.exit_code is None:
        _print(f"Ray could not run the job: {state.message.strip()}")
        return 1
    return state.exit_code if state.exit_code >= 0 else 128 - state.exit_code


class _Output:
    """Prints the output of a job as it grows, in whole lines."""

    def __init__(self) -> None:
        self._shown = 0

    def show(self, text: str, is_complete: bool) -> None:
        end = len(text) if is_complete else text.rfind("\n") + 1
        if end > self._shown:
            sys.stdout.write(PREAMBLE.sub("", text[self._shown : end]))
            sys.stdout.flush()
            self._shown = end


def _print(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
