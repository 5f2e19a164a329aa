"""A Ray head: its processes and its environment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import head
from cluster.head import MARK, HeadProcesses, LocalHead, client_environment
from cluster.jobs_api import ClusterError

TREE = "import subprocess as s; s.Popen(['sleep', '60']); s.Popen(['sleep', '60']).wait()"


@pytest.fixture
def spawned() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def _spawn(words: list[str], mark: str, is_leader: bool) -> subprocess.Popen[bytes]:
    environment = {**os.environ, MARK: mark}
    return subprocess.Popen(words, env=environment, start_new_session=is_leader)


def _wait_for_count(processes: HeadProcesses, count: int) -> None:
    end = time.monotonic() + 10
    while len(processes.find()) != count:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_head_ends_with_its_session_and_its_drivers_and_nothing_else(
    spawned, monkeypatch
) -> None:
    leader = _spawn([sys.executable, "-c", TREE], mark="a", is_leader=True)
    driver = _spawn(["sleep", "60"], mark="a", is_leader=True)
    other = _spawn(["sleep", "60"], mark="b", is_leader=True)
    spawned += [leader, driver, other]
    processes = HeadProcesses(pid=leader.pid, mark="a")
    _wait_for_count(processes, 4)
    monkeypatch.setattr(head, "STOP_S", 0.5)  # the driver does not exit by itself
    start = time.monotonic()
    processes.stop()
    assert time.monotonic() - start < 5
    assert processes.find() == []
    assert leader.poll() is not None
    assert driver.poll() is not None
    assert other.poll() is None


def test_a_session_that_nobody_vouches_for_is_left_alone(spawned) -> None:
    stranger = _spawn(["sleep", "60"], mark="", is_leader=True)
    spawned.append(stranger)
    processes = HeadProcesses(pid=stranger.pid, mark="a")
    processes.stop()
    assert stranger.poll() is None


def test_a_temporary_folder_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="is too long for Ray, whose sockets lie in it"):
        LocalHead(temp_dir=tmp_path / ("x" * 40))


def test_a_free_port_is_used_and_a_taken_one_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert head.free_port(taken) != taken
    assert head.free_port(taken) == taken


def test_no_port_is_named_that_the_system_may_hand_to_another() -> None:
    first, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(head.free_port() < first for _ in range(50))


def test_there_may_be_no_free_port(monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(head, "PORTS", [server.getsockname()[1]] * 100)
        with pytest.raises(ClusterError, match=r"none of a hundred ports of 127\.0\.0\.1 was free"):
            head.free_port()


def test_a_client_finds_the_head_the_token_and_this_python(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere")
    monkeypatch.setenv("NO_PROXY", "intranet")
    environment = client_environment("http://127.0.0.1:1")
    assert environment["RAY_ADDRESS"] == environment["RAY_API_SERVER_ADDRESS"]
    assert environment["RAY_ADDRESS"] == "http://127.0.0.1:1"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/usr/bin:/bin"
    assert environment["NO_PROXY"] == "intranet,127.0.0.1,localhost"


def test_stop_signals_are_handled_for_a_while_unless_they_were_ignored() -> None:
    seen: list[int] = []
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with head.stop_signals_to(lambda number, _: seen.append(number)):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, old)
    assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_a_head_that_cannot_start_tells_why_and_leaves_nothing(
    own_ray: Path, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        local = LocalHead(tmp_path, temp_dir=f"{short}/t", options=["--no-such-option"])
        with pytest.raises(ClusterError, match=r"(?s)did not start.*No such option"):
            local.start()
        assert os.listdir(short) == []
    assert local.has_ended()


def test_a_folder_that_is_there_is_not_taken_for_a_temporary_one(own_ray: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        local = LocalHead(temp_dir=short)
        with pytest.raises(ClusterError, match="File exists; name another"):
            local.start()
        local.stop()
        assert os.path.isdir(short)


def test_stopping_a_head_that_never_ran_removes_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    LocalHead().stop()
    assert tmp_path.exists()
