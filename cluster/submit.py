"""Hand a job to Ray and follow it to its end: what `make search` does.

The job goes to the Ray that runs, to one that is started for it and stopped afterwards, or to one
elsewhere, whose address is given.
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
"""Exit code of a job that was stopped; the same command goes on from there."""

FORWARDED = tuple(f"MLFLOW_TRACKING_{end}" for end in ("URI", "USERNAME", "PASSWORD", "TOKEN"))
"""Environment variables that a job gets from who submits it. Some are secret: they travel in a file
that others cannot read, since a command line can be read by all."""

TOKEN = {"RAY_AUTH_MODE": "token"}

ELSEWHERE_TIMEOUT_S = 30.0
"""For each answer of a Ray elsewhere."""

POLL_S = 0.3
PATIENCE_S = 60.0
"""Time for which Ray may fail to answer while a job runs; a busy machine is slow at it."""

PREAMBLE = re.compile(
    r"^.* -- Runtime env is setting up\.\n|^Running entrypoint for job .*\n", re.M
)
"""What Ray writes into the output of each job."""


def submit(
    job_file: str | Path,
    working_dir: str | Path = ".",
    arguments: Sequence[str] = (),
    *,
    address: str | None = None,
    with_aws_keys: bool = False,
    stop_wait_s: int = 60,
) -> int:
    """Runs `job_file` as a Ray job, with its output on ours.

    Ctrl-C and SIGTERM stop the job, giving it time to finish what it writes.

    Args:
        job_file: an executable file inside `working_dir`.
        working_dir: what travels to the cluster, less what `.gitignore` names.
        arguments: handed to the job file.
        address: of the dashboard of a Ray elsewhere; None: the one that runs here, or a new one.
        with_aws_keys: whether the keys of S3 in this environment go along to that Ray.
        stop_wait_s: seconds between SIGTERM and SIGKILL when the job is stopped.

    Returns:
        The exit code of the job; 130 if it was stopped.

    Raises:
        ClusterError: Ray cannot be reached or started, or does not take the job.
    """
    folder = Path(working_dir).resolve()
    words = [_entry_point(Path(job_file), folder), *arguments]
    names = FORWARDED if address is None else FORWARDED + s3_names(with_aws_keys)
    work = _Work(_submission_id(Path(job_file)), folder, words, names, stop_wait_s)
    with stop_signals_to(_interrupt):
        try:
            if address is not None:
                return _run_elsewhere(checked_address(address), work)
            with _head(folder) as here:
                return _run(JobsApi(here), work)
        except KeyboardInterrupt:
            return STOPPED


@dataclass(frozen=True)
class _Work:
    """A job on its way to Ray."""

    job: str
    """What Ray calls it."""
    folder: Path
    words: Sequence[str]
    names: Sequence[str]
    """Environment variables that it gets from here, where they are set."""
    stop_wait_s: int


def _submission_id(job_file: Path) -> str:
    """Letters, digits and '_.-' alone: it stands in addresses."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", job_file.stem)
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"


def _entry_point(job_file: Path, folder: Path) -> str:
    path = (folder / job_file).resolve()
    if not path.is_relative_to(folder):
        raise ClusterError(f"{job_file} is not in {folder}, which is all that travels to Ray")
    if not path.is_file():
        raise ClusterError(f"{job_file} does not exist in {folder}")
    if not os.access(path, os.X_OK):
        raise ClusterError(f"{job_file} is not executable; run: chmod +x {shlex.quote(str(path))}")
    return f"./{path.relative_to(folder)}"


@contextmanager
def _head(folder: Path) -> Iterator[str]:
    """Address of the Ray that runs, or of one that runs as long as the block."""
    address = running_head()
    if address:
        yield address
        return
    _say("starting Ray ...")
    with LocalHead(folder) as head:
        _say(f"Ray dashboard: {head.address}")
        yield head.address


def _run_elsewhere(address: str, work: _Work) -> int:
    if is_in_the_clear(address):
        _say(
            f"WARNING {address} is not encrypted: others on the way can read the token; "
            "use https://, or a tunnel to 127.0.0.1"
        )
    check_reachable(address)
    _say(f"{work.job} goes to the Ray at {address}")
    command = f"ray job logs --address {shlex.quote(address)} --follow {work.job}"
    api = JobsApi(address, timeout_s=ELSEWHERE_TIMEOUT_S)
    return _run(api, work, auth_mode(), lost=f"; the job goes on there: {command}")


def _run(api: JobsApi, work: _Work, auth: Mapping[str, str] = TOKEN, lost: str = "") -> int:
    """Its exit code; `lost` is said behind the error where it is followed no more."""
    output = _Output()
    try:
        _hand_in(api.address, work, auth)
        try:
            state = _follow(api, work.job, output)
        except ClusterError as error:
            raise ClusterError(f"{error}{lost}") from error
    except KeyboardInterrupt:
        _say("stopping the job ...")
        state = _stop(api, work.job, output, work.stop_wait_s)
    return _exit_code(state)


def _hand_in(address: str, work: _Work, auth: Mapping[str, str] = TOKEN) -> None:
    forwarded = {name: os.environ[name] for name in work.names if name in os.environ}
    environment = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(work.stop_wait_s), **forwarded}}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:  # for this user's eyes alone
        json.dump(environment, file)
        file.flush()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--no-wait"),
                *("--submission-id", work.job, "--working-dir", "."),
                *("--runtime-env", file.name, "--", *work.words),
            ],
            cwd=work.folder,
            env={**client_environment(address), **auth},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for us alone
        )
    if done.returncode:
        raise ClusterError(f"Ray does not take the job:\n{done.stdout[-2000:].strip()}")


def _follow(api: JobsApi, job: str, output: _Output, timeout_s: float = float("inf")) -> JobState:
    """Passes the output on until the job has ended, or time is up."""
    end = time.monotonic() + timeout_s
    last_answer = time.monotonic()
    while True:
        try:
            state = api.state(job)  # before the logs: those of an ended job are complete
            output.show(api.logs(job), is_complete=state.has_ended)
            last_answer = time.monotonic()
            if state.has_ended or last_answer > end:
                return state
        except ClusterError:
            if time.monotonic() > min(end, last_answer + PATIENCE_S):
                raise
        time.sleep(POLL_S)


def _stop(api: JobsApi, job: str, output: _Output, stop_wait_s: int) -> JobState:
    try:
        api.stop(job)
        return _follow(api, job, output, timeout_s=stop_wait_s + 5)
    except ClusterError as error:  # it was not handed in yet, or Ray is gone
        return JobState(status="STOPPED", message=str(error), exit_code=None)


def _exit_code(state: JobState) -> int:
    if state.status == "SUCCEEDED":
        return 0
    if state.status != "FAILED":
        return STOPPED
    if state.exit_code is None:
        _say(f"Ray could not run the job: {state.message.strip()}")
        return 1
    return state.exit_code if state.exit_code >= 0 else 128 - state.exit_code


class _Output:
    """Passes on what is new in a text that grows, by whole lines."""

    def __init__(self) -> None:
        self._shown = 0

    def show(self, text: str, is_complete: bool) -> None:
        end = len(text) if is_complete else text.rfind("\n") + 1
        if end > self._shown:
            sys.stdout.write(PREAMBLE.sub("", text[self._shown : end]))
            sys.stdout.flush()
            self._shown = end


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
