"""Who hangs, and what the first and the second signal do."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from ray import cloudpickle

from orchestration.distributed.control_actor import NoBoard, Place
from orchestration.distributed.watchdog import COMPUTING, HUNG, WAITING, Watch
from orchestration.driver.stopping import Stopper
from orchestration.driver.tune_callbacks import ending_when
from tests.conftest import REPOSITORY


class Others(NoBoard):
    """A board on which other workers have written."""

    def __init__(self, places: dict[int, Place]) -> None:
        self._found = places

    def places(self) -> dict[int, Place]:
        return self._found


def late(places: dict[int, Place], where: str, steps: int) -> str:
    """Whom worker 0 names."""
    watch = Watch(Others(places), 0, 10.0)
    for _ in range(steps):
        watch.step_done()
    with watch.inside(where):
        return watch._who()


def test_a_worker_that_computes_names_itself() -> None:
    assert late({1: Place(5, WAITING)}, COMPUTING, 5) == "worker 0"


def test_a_worker_that_waits_names_those_that_are_behind_or_still_compute() -> None:
    assert late({0: Place(5, WAITING), 1: Place(5, COMPUTING)}, WAITING, 5) == "worker 1"
    behind = {0: Place(5, WAITING), 1: Place(4, WAITING), 2: Place(4, COMPUTING)}
    assert late(behind, WAITING, 5) == "worker 1 and worker 2"
    assert late({}, WAITING, 5) == "a worker that cannot be told"


def test_a_process_that_hangs_ends_with_its_reason_and_its_stack() -> None:
    code = """
import time
from orchestration.distributed.control_actor import NoBoard
from orchestration.distributed.watchdog import COMPUTING, Watch
watch = Watch(NoBoard(), 3, 0.5)
watch.start()
time.sleep(1.5)  # outside of a stage anything may take its time
with watch.inside(COMPUTING):
    for _ in range(4):
        time.sleep(0.3)
        watch.step_done()
    time.sleep(60)
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == HUNG
    assert time.monotonic() - began < 30
    assert "worker 3 hangs: no step was done for" in done.stderr
    assert "most recent call first" in done.stderr


def test_while_workers_train_the_first_signal_asks_and_the_second_ends() -> None:
    stopper, asked = Stopper(), []
    with stopper.gently(lambda: asked.append(True)):
        stopper.on_signal(signal.SIGTERM, None)
        deadline = time.monotonic() + 10
        while not asked and time.monotonic() < deadline:
            time.sleep(0.01)
        assert asked == [True]
        assert stopper.is_stopping
        with pytest.raises(KeyboardInterrupt):
            stopper.on_signal(signal.SIGTERM, None)


def test_at_other_times_a_signal_ends_at_once() -> None:
    stopper = Stopper()
    with pytest.raises(KeyboardInterrupt):
        stopper.on_signal(signal.SIGINT, None)
    assert stopper.is_stopping


def test_tune_begins_no_case_of_a_job_that_is_over_and_keeps_none_of_its_driver() -> None:
    is_over = False
    ending = ending_when(lambda: is_over, {"training_iteration": 3})
    assert not ending.stop_all()
    is_over = True
    assert ending.stop_all()
    assert ending("a trial", {"training_iteration": 3})
    assert not ending("a trial", {"training_iteration": 2})
    assert not ending("a trial", {"loss": 3.0})
    assert not cloudpickle.loads(cloudpickle.dumps(ending)).stop_all()
