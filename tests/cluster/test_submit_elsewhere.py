"""Submission to a remote Ray cluster: what is passed on, and the results."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cluster import submit as module
from cluster.head import LocalHead
from cluster.jobs_api import ClusterError
from cluster.submit import submit

NAMES = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY", "ELSEWHERE_OTHER")
DRIVER = f"""
import os, sys
print(*[os.environ.get(name) for name in {NAMES}])
print(sys.argv[2:])
sys.exit(7)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "checkout"
    (made / "jobs").mkdir(parents=True)
    job = made / "jobs" / "my job$(x).yaml"
    job.write_text("#!/usr/bin/env -S python driver.py\nname: x\n")
    job.chmod(0o755)
    (made / "driver.py").write_text(DRIVER)
    return made


@pytest.fixture
def handed_in(dashboard, own_ray: Path, monkeypatch) -> Iterator[list[dict[str, Any]]]:
    """Arguments that Ray's client was called with; the dashboard reports success for every job."""
    calls: list[dict[str, Any]] = []

    def ray(words: list[str], **options: Any) -> SimpleNamespace:
        job = words[words.index("--submission-id") + 1]
        path = Path(words[words.index("--runtime-env") + 1])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        given = yaml.safe_load(path.read_text())["env_vars"]
        calls.append({"words": words, "job": job, "given": given, **options})
        dashboard.answers[f"/api/jobs/{job}"] = {"status": "SUCCEEDED", "driver_exit_code": 0}
        dashboard.answers[f"/api/jobs/{job}/logs"] = {"logs": "the table\n"}
        return SimpleNamespace(returncode=0, stdout="")

    monkeypatch.setattr(module.subprocess, "run", ray)
    monkeypatch.setattr(module, "POLL_S", 0.01)
    for name in (*module.FORWARDED, "AWS_REGION", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.setenv(name, f"hush-{name}")
    return calls


def test_a_job_gets_what_it_needs_and_nothing_else(handed_in, dashboard, folder: Path) -> None:
    assert submit("jobs/my job$(x).yaml", folder, address=dashboard.address) == 0
    names = {*module.FORWARDED, "AWS_REGION", "RAY_JOB_STOP_WAIT_TIME_S"}
    given = {name for name in handed_in[0]["given"] if not name.startswith("AWS_ENDPOINT")}
    assert given - {"AWS_DEFAULT_REGION"} == names


def test_keys_of_s3_travel_where_that_is_asked_and_never_as_words(
    handed_in, dashboard, folder: Path, monkeypatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hush-id")
    job = "jobs/my job$(x).yaml"
    assert submit(job, folder, address=dashboard.address, with_aws_keys=True) == 0
    assert handed_in[0]["given"]["AWS_SECRET_ACCESS_KEY"] == "hush-AWS_SECRET_ACCESS_KEY"
    assert not [word for word in handed_in[0]["words"] if "hush" in word]


def test_the_log_is_followed_at_the_address(handed_in, dashboard, folder: Path, capsys) -> None:
    submit("jobs/my job$(x).yaml", folder, address=f"{dashboard.address}/")
    shown = capsys.readouterr()
    assert shown.out == "the table\n"
    assert f"to the Ray cluster at {dashboard.address}\n" in shown.err
    assert handed_in[0]["env"]["RAY_ADDRESS"] == dashboard.address
    assert handed_in[0]["cwd"] == folder


def test_the_name_of_a_job_file_is_made_fit_for_an_address(
    handed_in, dashboard, folder: Path
) -> None:
    submit("jobs/my job$(x).yaml", folder, address=dashboard.address)
    assert handed_in[0]["job"].startswith("my-job--x--2")


def test_a_job_that_is_lost_from_sight_is_said_to_go_on(
    handed_in, dashboard, folder: Path, monkeypatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.05)
    monkeypatch.setattr(module.JobsApi, "state", lambda *_: module.JobsApi("x").version())
    expected = (
        rf"; the job keeps running there: ray job logs --address {dashboard.address} --follow my-"
    )
    with pytest.raises(ClusterError, match=expected):
        submit("jobs/my job$(x).yaml", folder, address=dashboard.address)


def test_an_address_in_the_clear_is_warned_of(own_ray: Path, folder: Path, capsys) -> None:
    with pytest.raises(ClusterError, match=r"nothing answers at http://no-such-host\.invalid"):
        submit("jobs/my job$(x).yaml", folder, address="http://no-such-host.invalid:1")
    assert "is not encrypted: others on the way can read the token" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_a_second_ray_runs_a_job_with_its_token_and_arguments_reach_no_shell(
    own_ray: Path, folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    words = ["--set", "a=$(touch pwned) ; `touch pwned` && \"'x"]
    with LocalHead(tmp_path, options=["--num-cpus=1"]) as head:
        monkeypatch.setenv(
            "RAY_ADDRESS", "http://127.0.0.1:1"
        )  # the given address takes precedence
        for name in NAMES:
            monkeypatch.setenv(name, f"here-{name}")
        job = "jobs/my job$(x).yaml"
        assert submit(job, folder, words, address=head.address) == 7
        shown = capsys.readouterr().out.splitlines()
        assert shown == ["here-MLFLOW_TRACKING_URI here-AWS_ENDPOINT_URL None None", str(words)]
        assert not list(tmp_path.rglob("pwned"))
        monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong" * 10)
        with pytest.raises(
            ClusterError, match="refuses the token in RAY_AUTH_TOKEN; put the token"
        ):
            submit(job, folder, words, address=head.address)
