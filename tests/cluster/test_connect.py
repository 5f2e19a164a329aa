"""Connecting to Ray: drivers to a cluster, and users to a head that keeps running."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import connect as module
from cluster.connect import ClusterError, main

ROOT = str(Path(module.__file__).parents[1])

DRIVER = """
import json, os, sys
from dataclasses import asdict
import ray
from cluster.connect import connect
with connect() as cluster:
    with connect() as again:
        pass
    print(json.dumps([asdict(cluster), asdict(again), ray.is_initialized(), os.getcwd()]))
assert not ray.is_initialized()
"""


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        env={**os.environ, "PYTHONPATH": ROOT, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def _python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return _run(sys.executable, *words, **environment)


def test_importing_loads_neither_torch_nor_ray() -> None:
    modules = "connect", "hardware", "lease", "runtimes.timing", "runtimes.executorch", "storage"
    imports = "; ".join(f"import cluster.{module}" for module in modules)
    done = _python("-c", f"{imports}; import sys; print(*sys.modules)")
    assert not {"torch", "ray", "executorch", "mlflow"} & set(done.stdout.split())


def test_an_address_for_jobs_is_no_address_for_a_driver(own_ray: Path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://far:8265")
    with pytest.raises(ClusterError, match="which takes jobs and no drivers: hand the job in"):
        module._driver_address()


def test_a_driver_finds_the_head_that_was_started_to_stay(
    own_ray: Path, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    state = {"pid": 1, "mark": "x", "address": "http://127.0.0.1:9", "temp_dir": str(tmp_path)}
    (tmp_path / "state" / "proxyless").mkdir(parents=True)
    (tmp_path / "state" / "proxyless" / "head.json").write_text(json.dumps(state))
    (tmp_path / "ray_current_cluster").write_text("192.0.2.2:1234")
    assert module._driver_address() == "192.0.2.2:1234"


@pytest.mark.parametrize(
    ("named", "address"), [(None, "local"), ("10.0.0.1:6379", "10.0.0.1:6379")]
)
def test_a_driver_goes_where_ray_address_says(
    own_ray: Path, monkeypatch, named: str | None, address: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    if named:
        monkeypatch.setenv("RAY_ADDRESS", named)
    assert module._driver_address() == address


def test_a_second_head_is_refused(dashboard, own_ray: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RAY_ADDRESS", dashboard.address)
    assert main(["head"]) == 1
    assert capsys.readouterr().err == (
        f"a Ray head runs already, at {dashboard.address}; use it, or stop it first\n"
    )


def test_there_may_be_no_head_to_stop(own_ray: Path, capsys) -> None:
    assert main(["stop"]) == 1
    assert capsys.readouterr().err == "no head runs that was started by `head`\n"


@pytest.mark.ray
@pytest.mark.slow
def test_a_driver_starts_a_ray_of_its_own_quietly(own_ray: Path) -> None:
    done = _python(
        "-W", "error", "-c", DRIVER
    )  # for the driver only: Ray's processes emit warnings
    assert done.stderr == ""
    cluster, again, is_connected, _ = json.loads(done.stdout)
    assert cluster["started"]
    assert cluster["cpus"] >= 1
    assert cluster["nodes"] == 1
    assert cluster["dashboard_url"].startswith("http://127.0.0.1:")
    assert again == {**cluster, "started": False}
    assert is_connected


@pytest.mark.ray
@pytest.mark.slow
def test_a_head_that_stays_takes_jobs_and_drivers_until_it_is_stopped(
    own_ray: Path, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job.yaml").write_text("#!/usr/bin/env -S python driver.py\nname: x\n")
    (tmp_path / "jobs" / "job.yaml").chmod(0o755)
    (tmp_path / "driver.py").write_text(DRIVER)
    monkeypatch.chdir(tmp_path)
    started = _python("-m", "cluster.connect", "head")
    try:
        assert started.returncode == 0, started.stderr
        result = re.search(r"^export RAY_ADDRESS=(\S+) RAY_AUTH_MODE=token$", started.stdout, re.M)
        assert result
        client = {"RAY_ADDRESS": result[1], "RAY_AUTH_MODE": "token"}
        ray = str(Path(sys.executable).with_name("ray"))
        job = _run(ray, "job", "submit", "jobs/job.yaml", **client)
        driver = _python("-c", DRIVER, **client)
        assert _python("-m", "cluster.connect", "head", **client).returncode == 1
    finally:
        stopped = _python("-m", "cluster.connect", "stop")
    assert job.returncode == 0, job.stdout
    facts = json.loads(next(line for line in job.stdout.splitlines() if line.startswith("[{")))
    assert facts[0] == json.loads(driver.stdout)[0]
    assert facts[0]["started"] is False
    assert facts[0]["dashboard_url"] == result[1]
    assert facts[3] == str(tmp_path)  # without its own working folder, it runs in that of the head
    assert stopped.stdout == "Ray is stopped.\n"
    assert _python("-m", "cluster.connect", "stop").returncode == 1
