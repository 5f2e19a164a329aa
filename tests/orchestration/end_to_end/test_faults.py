"""Fault injection on a real Ray cluster: a search survives and ends as if nothing had failed.

One run has several faults in a row, so that `make test-all` covers every fault within minutes; the
long tests inject each kind at more moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.faults import (
    JOB_TIMEOUT_S,
    Fault,
    Rig,
    job_file,
    latency_rows,
    rig,
    searched,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

CLOCK = ("seconds", "time", "images_per_s", "share_data", "share_communication")
LONG = {"warmup_epochs": 2, "epochs": 16, "batch_size": 128, "architecture_share": 0.2}
PATIENT = {"workers": 2, "hang_timeout_s": 10.0, "max_failures": 3}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the device, as if measured by another job."""
    path = tmp_path_factory.mktemp("table") / "control.json"
    path.write_text(json.dumps(latency_rows(path.parent)))
    return path


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("faults"), 1, 1) as made:
        yield made


@pytest.fixture(scope="module")
def whole(two_nodes: Rig, table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Final state of the search without faults."""
    storage = tmp_path_factory.mktemp("whole")
    two_nodes.plan()
    assert_done(two_nodes, job_file(storage, table, cluster=PATIENT))
    assert two_nodes.attempts() == 1
    return outcome(storage)


def assert_done(made: Rig, job: Path) -> str:
    """Run a job to its end; returns its output."""
    driver = made.drive(job)
    said, _ = driver.communicate(timeout=JOB_TIMEOUT_S)
    assert driver.returncode == 0, said
    return said


def assert_goes_on(made: Rig, job: Path, whole: dict[str, Any]) -> None:
    """Check that the same command ends as if the job had not been stopped."""
    made.pace(0.0)
    assert_done(made, job)
    assert outcome(job.parent) == whole


def assert_failed(driver: subprocess.Popen[str], *words: str) -> str:
    """Check that a case failed with this reason; returns the output."""
    said, _ = driver.communicate(timeout=JOB_TIMEOUT_S)
    assert driver.returncode == 1, said
    for item in ("FAILED control-", *words):
        assert item in said
    return said


def outcome(storage: Path) -> dict[str, Any]:
    """Final state of a search, without times."""
    result = searched(storage)
    history = [{k: v for k, v in e.items() if k not in CLOCK} for e in result["search_history"]]
    names = ("architecture_hash", "alphas", "supernet_weights", "workers")
    return {"history": history} | {name: result[name] for name in names}


def assert_nothing_left(storage: Path) -> None:
    left = [path for path in (storage / "faulty").rglob("*") if path.name.endswith(".tmp")]
    assert left == []
    assert not list((storage / "faulty" / "checkpoints").glob("*/*"))


def assert_recorded_once(storage: Path) -> None:
    with closing(sqlite3.connect(storage / "mlflow.db")) as database:
        runs = database.execute("select name from runs").fetchall()
        steps = database.execute("select run_uuid, key, step from metrics").fetchall()
    assert ("faulty",) in runs
    assert len(set(runs)) == len(runs)
    assert len(set(steps)) == len(steps) > 20


def checkpoints(storage: Path) -> list[Path]:
    """Checkpoints of the warm-up and of the search that starts from it."""
    steps = "[0-9]" * 5 + "-" + "[0-9]" * 8
    places = (f"warmups/*/{steps}", f"faulty/checkpoints/*/search/{steps}")
    return [path for place in places for path in storage.glob(place)]


def by_name(checkpoint: Path) -> str:
    """The newest checkpoint; names sort by time."""
    return checkpoint.name


def damage_newest(storage: Path) -> Path:
    """Flip a bit in the newest checkpoint, once its workers are gone."""
    time.sleep(3)  # what is being written may still be
    complete = [item for item in checkpoints(storage) if (item / "rank-1.json").exists()]
    newest = max((item for item in complete if (item / "rank-0.json").exists()), key=by_name)
    content = bytearray((newest / "shared.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "shared.pt").write_bytes(content)
    return newest


def process_of(title: str, made: Rig) -> int:
    """The only process with this title in this Ray cluster; others may run on the machine."""
    result = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        is_here = (process.info["environ"] or {}).get("FAULTS") == str(made.folder)
        if is_here and title in " ".join(process.info["cmdline"] or []):
            result.append(process.pid)
    (pid,) = result
    return pid


@pytest.mark.slow
def test_a_search_survives_all_that_can_break_and_ends_as_if_nothing_had(
    two_nodes: Rig, whole: dict[str, Any], table: Path, tmp_path: Path
) -> None:
    two_nodes.plan(Fault("kill", 1, 15), Fault("error", 0, 10), Fault("hang", 1, 12))
    job = job_file(tmp_path, table, cluster=PATIENT)
    driver = two_nodes.drive(job)
    two_nodes.wait_for_step(5, attempt=4)
    for number in range(3):
        assert not psutil.pid_exists(two_nodes.victim(number))
    trial = process_of("ray::ResourceTrainable", two_nodes)
    os.kill(trial, signal.SIGKILL)
    two_nodes.wait_for_step(5, attempt=5)
    assert not psutil.pid_exists(trial)
    driver.kill()
    said_before, _ = driver.communicate()
    assert "worker 1 hangs: no step was done for" in said_before
    damaged = damage_newest(tmp_path)
    said = assert_done(two_nodes, job)
    assert f"{damaged} is damaged (shared.pt has another checksum than when it was written)" in said
    assert two_nodes.attempts() == 6
    assert "warmup  001/008" not in said
    assert outcome(tmp_path) == whole
    assert_nothing_left(tmp_path)
    assert_recorded_once(tmp_path)


@pytest.mark.long
@pytest.mark.slow
def test_a_search_survives_each_fault_of_the_other_worker_too(
    two_nodes: Rig, whole: dict[str, Any], table: Path, tmp_path: Path
) -> None:
    two_nodes.plan(Fault("kill", 0, 25), Fault("error", 1, 8), Fault("hang", 0, 12))
    said = assert_done(two_nodes, job_file(tmp_path, table, cluster=PATIENT))
    for number in range(3):
        assert not psutil.pid_exists(two_nodes.victim(number))
    assert two_nodes.attempts() == 4
    assert "worker 0 hangs" in said
    assert "worker 1 hangs" not in said
    assert outcome(tmp_path) == whole
    assert_recorded_once(tmp_path)


def left_on(made: Rig) -> list[str]:
    """Living actors and placement groups by Ray's state API, without the one that Ray Train creates
    once per cluster."""
    from ray.util.state import list_actors, list_placement_groups

    address = f"http://{made.cluster.head_node.webui_url}"
    living = [a.class_name for a in list_actors(address) if a.state != "DEAD"]
    actors = [name for name in living if name != "_AutoscalingCoordinatorActor"]
    groups = [str(g.name) for g in list_placement_groups(address) if g.state != "REMOVED"]
    return actors + groups


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_stopped_job_leaves_a_checkpoint_and_nothing_else_and_goes_on(
    two_nodes: Rig, whole: dict[str, Any], table: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    two_nodes.plan()
    two_nodes.pace(0.1)
    job = job_file(tmp_path, table, cluster=PATIENT)
    driver = two_nodes.drive(job)
    worker = two_nodes.wait_for_step(23)  # the fifth of its epoch, of nine
    two_nodes.pace(2.0)  # longer than a stop takes to arrive
    driver.send_signal(kind)
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    assert "the same command goes on from here" in said
    assert not psutil.pid_exists(worker)
    newest = max(checkpoints(tmp_path), key=by_name)
    assert int(newest.name.split("-")[1]) > 0, "in the middle of an epoch"
    assert not list((tmp_path / "faulty").rglob("*.tmp"))
    assert left_on(two_nodes) == []
    assert_goes_on(two_nodes, job, whole)


STOPPED_BY_TUNE = """
import sys
from pathlib import Path
import orchestration.driver.trials as trials
from orchestration.cli.app import main
run_cases = trials.run_cases
stop = {"training_iteration": 3}
trials.run_cases = lambda *words, **named: run_cases(*words, **named, stop=stop)
sys.exit(main([sys.argv[1]]))
"""


@pytest.mark.long
@pytest.mark.slow
def test_a_case_that_tune_stops_ends_with_a_checkpoint_and_goes_on_another_time(
    two_nodes: Rig, whole: dict[str, Any], table: Path, tmp_path: Path
) -> None:
    two_nodes.plan()
    two_nodes.pace(0.1)
    job = job_file(tmp_path, table, cluster=PATIENT)
    driver = two_nodes.drive(job, program=["-c", STOPPED_BY_TUNE])
    two_nodes.wait_for_step(24)  # three before the end of an epoch
    two_nodes.pace(1.0)  # the stop comes within the next epoch
    assert_failed(driver, "it was stopped; the same command goes on from there")
    assert not list((tmp_path / "faulty").glob("cases/*/result.json"))
    names = [checkpoint.name for checkpoint in checkpoints(tmp_path)]
    assert any(int(name.split("-")[1]) > 0 for name in names), names
    assert left_on(two_nodes) == []
    assert_goes_on(two_nodes, job, whole)


@pytest.mark.long
@pytest.mark.slow
def test_a_loss_that_is_never_finite_again_fails_the_case_once_and_for_all(
    two_nodes: Rig, table: Path, tmp_path: Path
) -> None:
    two_nodes.plan()
    (two_nodes.folder / "poison").write_text("20")
    driver = two_nodes.drive(job_file(tmp_path, table, cluster=PATIENT))
    assert_failed(
        driver,
        "back to epoch 3, step 1, with half the learning rate",
        "was not finite in 11 steps in a row, the last of them step ",
    )
    assert two_nodes.attempts() == 1


@pytest.mark.long
@pytest.mark.slow
def test_a_storage_that_refuses_checkpoints_fails_the_case_and_keeps_the_last_good_one(
    two_nodes: Rig, whole: dict[str, Any], table: Path, tmp_path: Path
) -> None:
    two_nodes.plan()
    two_nodes.pace(0.2)
    cluster = {"workers": 2, "max_failures": 0}  # longer attempts to write than PATIENT's hang
    job = job_file(tmp_path, table, cluster=cluster)
    driver = two_nodes.drive(job)
    two_nodes.wait_for_step(12)
    (first,) = checkpoints(tmp_path)
    folder = first.parent
    assert first.name == "00001-00000000"
    (folder / "00002-00000000").write_text("in the way")  # even root cannot write below a file
    assert_failed(driver, "a checkpoint could not be written in 5 attempts", "the last good one is")
    (folder / "00002-00000000").unlink()
    assert_goes_on(two_nodes, job, whole)


@pytest.mark.long
@pytest.mark.slow
def test_a_worker_that_always_breaks_fails_the_case_with_its_reason(
    two_nodes: Rig, table: Path, tmp_path: Path
) -> None:
    two_nodes.plan(*[Fault("error", 0, 3)] * 9)
    driver = two_nodes.drive(job_file(tmp_path, table, cluster={**PATIENT, "max_failures": 1}))
    assert_failed(driver, "injected: this worker breaks")
    assert two_nodes.attempts() == 2


@pytest.mark.slow
def test_a_search_goes_on_without_a_node_and_with_a_new_one(table: Path, tmp_path: Path) -> None:
    cluster = {"workers": [1, 2], "elastic_resize_monitor_interval_s": 5.0}
    with rig(tmp_path / "faults", 1, 1) as made:
        made.pace(0.2)
        storage = tmp_path / "storage"
        driver = made.drive(job_file(storage, table, cluster=cluster, search=LONG))
        made.wait_for_step(12)
        made.cluster.remove_node(made.nodes[0], allow_graceful=False)
        lost = time.time()
        made.wait_for_step(3, attempt=2)
        made.pace(0.6)  # it must not end before the new node is there
        assert made.starts()[-1][1] == 1
        recovered = made.starts()[-1][3] - lost
        made.cluster.add_node(num_cpus=1)
        added = time.time()
        made.wait_for_step(3, attempt=3)
        joined = made.starts()[-1][3] - added
        made.pace(0.0)
        said, _ = driver.communicate(timeout=JOB_TIMEOUT_S)
    assert driver.returncode == 0, said
    sizes = [size for rank, size, *_ in made.starts() if rank == 0]
    assert sizes == [2, 1, 2]
    epochs = [epoch["epoch"] for epoch in searched(storage)["search_history"]]
    assert epochs == list(range(18))
    assert_recorded_once(storage)
    assert recovered < 180, "tests/benchmarks/recovery.py has the figures of a quiet machine"
    assert joined < 90


@pytest.mark.long
@pytest.mark.slow
def test_a_node_that_is_taken_away_with_a_notice_costs_no_work_and_is_no_failure(
    table: Path, tmp_path: Path
) -> None:
    cluster = {"workers": [1, 2], "elastic_resize_monitor_interval_s": 600.0, "max_failures": 0}
    search = {**LONG, "epochs": 3, "batch_size": 32}  # an epoch takes longer than ten seconds
    with rig(tmp_path / "faults", 1, 1) as made:
        made.pace(1.0)
        storage = tmp_path / "storage"
        driver = made.drive(job_file(storage, table, cluster=cluster, search=search))
        made.wait_for_step(3)
        made.announce(made.nodes[0], 20)
        time.sleep(20)
        made.cluster.remove_node(made.nodes[0], allow_graceful=False)
        saved = [checkpoint.name for checkpoint in checkpoints(storage)]
        made.pace(0.0)
        said, _ = driver.communicate(timeout=JOB_TIMEOUT_S)
    assert driver.returncode == 0, said
    assert any(int(name.split("-")[1]) > 0 for name in saved), saved
    assert "a node will be preempted; a checkpoint every 10 s until then" in said
    assert [size for rank, size, *_ in made.starts() if rank == 0] == [2, 1]
    assert_recorded_once(storage)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_search_killed_at_five_random_moments_ends_as_one_never_killed(
    two_nodes: Rig, whole: dict[str, Any], table: Path, tmp_path: Path, seed: int
) -> None:
    rng, count = random.Random(seed), 5
    steps = [rng.randrange(1, 15) for _ in range(count)]  # of 72 in all
    two_nodes.plan(*(Fault("kill", rng.randrange(2), step) for step in steps))
    cluster = {**PATIENT, "max_failures": count}
    assert_done(two_nodes, job_file(tmp_path, table, cluster=cluster))
    for number in range(count):
        assert not psutil.pid_exists(two_nodes.victim(number))
    assert two_nodes.attempts() == 1 + count
    assert outcome(tmp_path) == whole
