"""Threads spin on an idle machine and sleep on a busy one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest

from orchestration.distributed.thread_waiting import WAIT_POLICY, choose_waiting


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A machine with 4 cores; `idle` is set in percent."""
    state = SimpleNamespace(idle=100.0)
    monkeypatch.delenv(WAIT_POLICY, raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(psutil, "cpu_times_percent", lambda interval: state)  # noqa: ARG005
    yield state
    os.environ.pop(WAIT_POLICY, None)


@pytest.mark.parametrize(
    ("threads", "idle", "policy"),
    [
        (4, 95.0, None),
        (4, 60.0, "PASSIVE"),  # 2.4 of 4 cores
        (2, 60.0, None),  # enough for two threads
        (2, 30.0, "PASSIVE"),
        (16, 90.0, None),  # more threads than cores want the whole machine
    ],
)
def test_threads_spin_if_their_cores_are_idle(
    machine: SimpleNamespace, threads: int, idle: float, policy: str | None
) -> None:
    machine.idle = idle
    assert choose_waiting(threads) == (policy is None)
    assert os.environ.get(WAIT_POLICY) == policy


def test_one_thread_waits_for_no_other(machine: SimpleNamespace) -> None:
    machine.idle = 0.0
    assert choose_waiting(1)
    assert WAIT_POLICY not in os.environ


def test_a_load_that_passes_is_not_counted(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = iter([5.0, 10.0, 90.0])
    monkeypatch.setattr(psutil, "cpu_times_percent", lambda **_: SimpleNamespace(idle=next(loads)))
    assert choose_waiting(4)
    assert WAIT_POLICY not in os.environ


def test_the_policy_of_the_user_is_kept(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.idle = 0.0
    monkeypatch.setenv(WAIT_POLICY, "ACTIVE")
    assert choose_waiting(4)
    assert os.environ[WAIT_POLICY] == "ACTIVE"


def test_torch_is_not_loaded_to_choose() -> None:
    code = (
        "import sys; from orchestration.distributed.ray_backend import choose_waiting; "
        "choose_waiting(1); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
