"""Submitting a job: errors, output, and exit codes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml

from cluster import submit as module
from cluster.head import MARK, LocalHead
from cluster.jobs_api import ClusterError, JobsApi, JobState
from cluster.submit import STOPPED, _exit_code, _follow, _Output, submit

JOB = """#!/usr/bin/env -S python driver.py
name: a job file of two lines
"""
DRIVER = """
import os, signal, sys, time
def stop(number, frame):
    time.sleep(1)
    print("saved", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print("arguments", *sys.argv[1:], flush=True)
print("uri", os.environ.get("MLFLOW_TRACKING_URI"), flush=True)
print("here", os.environ["HOME"], file=open("written-in-the-working-folder", "w"))
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job.yaml").write_text(JOB)
    (tmp_path / "jobs" / "job.yaml").chmod(0o755)
    (tmp_path / "driver.py").write_text(DRIVER)
    return tmp_path


def test_a_missing_job_file_is_refused_before_ray_is_asked(folder: Path) -> None:
    with pytest.raises(ClusterError, match=r"jobs/none.yaml does not exist in"):
        submit("jobs/none.yaml", folder)


def test_a_job_file_that_cannot_be_executed_is_refused(folder: Path) -> None:
    (folder / "jobs" / "job.yaml").chmod(0o644)
    with pytest.raises(ClusterError, match=r"not executable; run: chmod \+x .*jobs/job.yaml"):
        submit("jobs/job.yaml", folder)


def test_a_job_file_outside_the_working_folder_is_refused(folder: Path) -> None:
    with pytest.raises(ClusterError, match=r"is not in .*jobs, and only that folder is sent"):
        submit(folder / "driver.py", folder / "jobs")


def test_output_is_shown_by_whole_lines_without_what_ray_adds(capsys) -> None:
    output = _Output()
    preamble = (
        "2026-11-22 21:48:39,748\tINFO job_manager.py:581 -- Runtime env is setting up.\n"
        "Running entrypoint for job one: ./jobs/x.yaml\n"
    )
    output.show(preamble + "epoch 1\nepo", is_complete=False)
    assert capsys.readouterr().out == "epoch 1\n"
    output.show(preamble + "epoch 1\nepoch 2\n", is_complete=False)
    output.show(preamble + "epoch 1\nepoch 2\nend", is_complete=True)
    assert capsys.readouterr().out == "epoch 2\nend"


@pytest.mark.parametrize(
    ("status", "exit_code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", 130, 130),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 130),
        ("RUNNING", None, 130),  # did not end within the time to stop
    ],
)
def test_the_exit_code_is_that_of_the_driver(
    status: str, exit_code: int | None, expected: int
) -> None:
    assert _exit_code(JobState(status=status, message="", exit_code=exit_code)) == expected


def test_a_job_is_followed_to_its_end(dashboard, capsys, monkeypatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    dashboard.answers["/api/jobs/x"] = {"status": "SUCCEEDED", "driver_exit_code": 0}
    dashboard.answers["/api/jobs/x/logs"] = {"logs": "one\ntwo"}
    assert _follow(JobsApi(dashboard.address), "x", _Output()).status == "SUCCEEDED"
    assert capsys.readouterr().out == "one\ntwo"


def test_ray_that_is_silent_for_long_is_given_up(dashboard, monkeypatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.1)
    with pytest.raises(ClusterError, match="answers 404"):
        _follow(JobsApi(dashboard.address), "x", _Output())


def test_logins_travel_in_a_file_for_this_user_alone(folder: Path, monkeypatch) -> None:
    logins = {"URI": "https://me:hush-uri@host", "USERNAME": "me", "PASSWORD": "hush-word"}
    for end, value in logins.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{end}", value)
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)

    def ray(words: list[str], **_: Any) -> SimpleNamespace:
        assert not [word for word in words if "hush" in word]
        path = Path(words[words.index("--runtime-env") + 1])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        given = yaml.safe_load(path.read_text())["env_vars"]
        assert given.pop("RAY_JOB_STOP_WAIT_TIME_S") == "5"
        assert given == {f"MLFLOW_TRACKING_{end}": value for end, value in logins.items()}
        return SimpleNamespace(returncode=1, stdout=str(path))

    monkeypatch.setattr(module.subprocess, "run", ray)
    work = module._Submission("x", folder, ["./jobs/job.yaml"], module.FORWARDED, 5)
    with pytest.raises(ClusterError, match="Ray refused the job") as told:
        module._submit("http://127.0.0.1:1", work)
    assert not Path(str(told.value).splitlines()[-1]).exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_runs_on_a_head_of_its_own_and_nothing_is_left(
    folder: Path, own_ray: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////tmp/x.db")
    started: list[tuple[LocalHead, Path]] = []
    monkeypatch.setattr(LocalHead, "__enter__", _remembering(started))
    assert submit("jobs/job.yaml", folder, ["0", "7", "--set", "a.b=c d"]) == 7
    assert capsys.readouterr().out == (
        "arguments ./jobs/job.yaml 0 7 --set a.b=c d\nuri sqlite:////tmp/x.db\n"
    )
    assert not (folder / "written-in-the-working-folder").exists()
    ((head, temp_dir),) = started
    assert not temp_dir.exists()
    assert not any(_variable(process, MARK) == head.mark for process in _processes())


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_stopped_job_saves_and_takes_its_head_along(
    folder: Path, own_ray: Path, kind: signal.Signals
) -> None:
    words = [sys.executable, "-m", "cluster.connect", "submit", "jobs/job.yaml", "60", "0"]
    root = str(Path(module.__file__).parents[1])
    with subprocess.Popen(
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "TEST_MARK": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background has Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as client:
        assert client.stdout is not None
        while not (line := client.stdout.readline()).startswith("uri"):
            assert line, "the client ended too soon"
        client.send_signal(kind)
        start = time.monotonic()
        rest = client.stdout.read()
        assert client.wait() == STOPPED
    assert "saved\n" in rest
    assert time.monotonic() - start < 30
    assert not any(_variable(process, "TEST_MARK") == str(folder) for process in _processes())


def _remembering(started: list[tuple[LocalHead, Path]]):
    def enter(head: LocalHead) -> LocalHead:
        head.start()
        started.append((head, head.temp_dir))
        return head

    return enter


def _processes() -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if p.status() != psutil.STATUS_ZOMBIE]


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return process.environ().get(name)
    except psutil.Error:
        return None
