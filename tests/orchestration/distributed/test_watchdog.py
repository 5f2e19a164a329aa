"""Watchdog: which worker hangs. Signals: effects of the first and the second."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from ray import cloudpickle

from orchestration.distributed.control_actor import NoControlClient, WorkerProgress
from orchestration.distributed.watchdog import COMPUTING, HUNG, WAITING, Watchdog
from orchestration.driver.stopping import StopSignal
from orchestration.driver.tune_callbacks import ending_when
from tests.conftest import REPOSITORY


class Others(NoControlClient):
    """A control client with progress of other workers."""

    def __init__(self, progress: dict[int, WorkerProgress]) -> None:
        self._progress = progress

    def progress(self) -> dict[int, WorkerProgress]:
        return self._progress


def late(progress: dict[int, WorkerProgress], activity: str, steps: int) -> str:
    """Workers that worker 0 names."""
    watchdog = Watchdog(Others(progress), 0, 10.0)
    for _ in range(steps):
        watchdog.step_done()
    with watchdog.inside(activity):
        return watchdog._who()


def test_a_worker_that_computes_names_itself() -> None:
    assert late({1: WorkerProgress(5, WAITING)}, COMPUTING, 5) == "worker 0"


def test_a_worker_that_waits_names_those_that_are_behind_or_still_compute() -> None:
    assert (
        late({0: WorkerProgress(5, WAITING), 1: WorkerProgress(5, COMPUTING)}, WAITING, 5)
        == "worker 1"
    )
    behind = {
        0: WorkerProgress(5, WAITING),
        1: WorkerProgress(4, WAITING),
        2: WorkerProgress(4, COMPUTING),
    }
    assert late(behind, WAITING, 5) == "worker 1 and worker 2"
    assert late({}, WAITING, 5) == "a worker that cannot be identified"


def test_a_process_that_hangs_ends_with_its_reason_and_its_stack() -> None:
    code = """
import time
from orchestration.distributed.control_actor import NoControlClient
from orchestration.distributed.watchdog import COMPUTING, Watchdog
watchdog = Watchdog(NoControlClient(), 3, 0.5)
watchdog.start()
time.sleep(1.5)  # outside of a stage there is no timeout
with watchdog.inside(COMPUTING):
    for _ in range(4):
        time.sleep(0.3)
        watchdog.step_done()
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
    stop_signal, asked = StopSignal(), []
    with stop_signal.graceful_stop(lambda: asked.append(True)):
        stop_signal.on_signal(signal.SIGTERM, None)
        deadline = time.monotonic() + 10
        while not asked and time.monotonic() < deadline:
            time.sleep(0.01)
        assert asked == [True]
        assert stop_signal.is_stopping
        with pytest.raises(KeyboardInterrupt):
            stop_signal.on_signal(signal.SIGTERM, None)


def test_at_other_times_a_signal_ends_at_once() -> None:
    stop_signal = StopSignal()
    with pytest.raises(KeyboardInterrupt):
        stop_signal.on_signal(signal.SIGINT, None)
    assert stop_signal.is_stopping


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
