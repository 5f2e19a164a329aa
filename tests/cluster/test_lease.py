"""A lease: one owner, which can be identified, and whose death is detected."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from cluster.lease import Holder, Lease, LeaseHeld, holder
from cluster.storage import Storage, StorageError

QUICK = {"renew_s": 0.05, "expire_s": 0.5}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "job"))


def test_a_lease_is_there_while_it_is_held(storage: Storage) -> None:
    with Lease(storage, **QUICK):
        assert storage.list() == ["lease.json"]
        assert storage.read_json("lease.json")["process"] == os.getpid()
    assert storage.list() == []


def test_a_held_lease_is_refused_soon_naming_its_owner(storage: Storage) -> None:
    with Lease(storage, **QUICK):
        start = time.monotonic()
        with pytest.raises(LeaseHeld) as caught, Lease(storage, **QUICK):
            pass
        assert time.monotonic() - start < 0.4
        since = storage.read_json("lease.json")["since"]
    assert (caught.value.host, caught.value.process) == (socket.gethostname(), os.getpid())
    assert caught.value.since == since
    assert f"held by process {os.getpid()} on host {socket.gethostname()} since {since}; " in str(
        caught.value
    )


def test_a_refusal_can_leave_a_worker() -> None:
    error = pickle.loads(pickle.dumps(LeaseHeld("/x", "host", 7, "noon")))
    assert str(error) == str(LeaseHeld("/x", "host", 7, "noon"))


def test_a_renewed_lease_is_never_taken(storage: Storage) -> None:
    with Lease(storage, renew_s=0.05, expire_s=0.2) as lease:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            with pytest.raises(LeaseHeld), Lease(storage, renew_s=0.05, expire_s=0.2):
                pass
        assert not lease.lost.is_set()


def _hold(uri: str) -> None:
    with Lease(Storage(uri), **QUICK):
        time.sleep(60)


def test_a_lease_is_taken_over_after_its_holder_died(storage: Storage) -> None:
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(storage.uri,))
    holder.start()
    assert holder.pid is not None
    while not storage.exists("lease.json"):
        time.sleep(0.01)
    with pytest.raises(LeaseHeld, match=f"held by process {holder.pid} "), Lease(storage, **QUICK):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    start = time.monotonic()
    with Lease(storage, **QUICK):
        assert 0.45 < time.monotonic() - start < 2
        assert storage.read_json("lease.json")["process"] == os.getpid()


def test_a_lease_that_is_released_meanwhile_is_had_at_once(storage: Storage) -> None:
    # Renewed too slowly to be seen alive: only its disappearance is detected.
    first = Lease(storage, renew_s=5, expire_s=10)
    first.__enter__()
    threading.Timer(0.2, first.__exit__, (None, None, None)).start()
    start = time.monotonic()
    with Lease(storage, renew_s=0.05, expire_s=10):
        assert 0.15 < time.monotonic() - start < 2


@pytest.mark.parametrize("stale", [None, b'{"host": "gone"}', b""])
def test_of_takers_that_race_one_wins(storage: Storage, stale: bytes | None) -> None:
    if stale is not None:
        storage.write_bytes("lease.json", stale)
    won: list[int] = []
    refused: list[int] = []
    start, end = threading.Barrier(4), threading.Barrier(4)

    def take(number: int) -> None:
        start.wait()
        try:
            with Lease(storage, renew_s=0.05, expire_s=0.3):
                won.append(number)
                end.wait()
        except LeaseHeld:
            refused.append(number)
            end.wait()

    takers = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    assert (len(won), len(refused)) == (1, 3)


def test_a_lost_lease_is_noticed_and_left_to_its_taker(storage: Storage) -> None:
    told = threading.Event()
    with Lease(storage, **QUICK, on_lost=told.set) as lease:
        storage.write_text("lease.json", '{"host": "other"}')
        assert lease.lost.wait(2)
        assert told.wait(2)
    assert storage.read_json("lease.json") == {"host": "other"}


def test_a_lease_that_cannot_be_renewed_is_lost(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bool:
        raise StorageError("the disk is gone")

    with Lease(storage, renew_s=0.05, expire_s=0.2) as lease:
        monkeypatch.setattr(storage, "swap", broken)
        start = time.monotonic()
        assert lease.lost.wait(2)
        assert time.monotonic() - start > 0.1
        monkeypatch.undo()


def test_a_short_failure_to_renew_is_survived(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bool:
        raise StorageError("the disk is slow")

    with Lease(storage, renew_s=0.05, expire_s=5.0) as lease:
        monkeypatch.setattr(storage, "swap", broken)
        time.sleep(0.3)
        monkeypatch.undo()
        end = time.monotonic() + 4
        while storage.read_json("lease.json")["renewal"] == 0 and time.monotonic() < end:
            time.sleep(0.02)
        assert not lease.lost.is_set()
        assert storage.read_json("lease.json")["renewal"] > 0


def test_an_expiry_shorter_than_two_renewals_is_refused(storage: Storage) -> None:
    with pytest.raises(ValueError, match="expected two renewals or more"):
        Lease(storage, renew_s=5, expire_s=6)


def seen(storage: Storage, **settings: float) -> Holder | None:
    return holder(storage, **{"expire_s": 0.5, "watch_s": 0.2, **settings})


def left(storage: Storage, host: str, process: int, age_s: float) -> None:
    """A lease that its owner no longer renews."""
    storage.write_json("lease.json", {"host": host, "process": process, "since": "noon"})
    then = time.time() - age_s
    os.utime(storage.path("lease.json"), (then, then))


def no_process() -> int:
    """Number of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def test_a_living_owner_is_seen_at_once_and_not_disturbed(storage: Storage) -> None:
    with Lease(storage, renew_s=30, expire_s=60):
        before = storage.read_bytes("lease.json")
        began = time.monotonic()
        result = seen(storage, expire_s=60, watch_s=5)
        assert time.monotonic() - began < 1
        assert storage.read_bytes("lease.json") == before
    assert result is not None
    assert (result.is_alive, result.process) == (True, os.getpid())
    assert abs(time.time() - result.renewed) < 5


def test_a_lease_that_nobody_holds_has_no_holder(storage: Storage) -> None:
    assert seen(storage) is None
    assert not storage.exists("")


def test_an_owner_whose_process_has_ended_is_gone(storage: Storage) -> None:
    left(storage, socket.gethostname(), no_process(), age_s=60)
    began = time.monotonic()
    result = seen(storage, watch_s=5)
    assert time.monotonic() - began < 1
    assert result is not None
    assert (result.is_alive, result.since) == (False, "noon")


@pytest.mark.parametrize("age_s", [0, 60])
def test_a_process_that_only_has_its_number_is_not_the_owner(storage: Storage, age_s: int) -> None:
    left(storage, socket.gethostname(), os.getpid() if age_s else no_process(), age_s)
    result = seen(storage)
    assert result is not None
    assert not result.is_alive


@pytest.mark.parametrize("age_s", [0, -3600, 3600])  # clocks of hosts are never compared
def test_an_owner_on_another_host_lives_if_its_file_changes(storage: Storage, age_s: int) -> None:
    left(storage, "far-away", 7, age_s)
    result = seen(storage)
    assert result is not None
    assert not result.is_alive
    renewal = threading.Timer(0.1, left, (storage, "far-away", 8, age_s))
    renewal.start()
    result = seen(storage, watch_s=5)
    renewal.join()
    assert result is not None
    assert result.is_alive


def test_an_owner_that_leaves_while_it_is_watched_holds_nothing(storage: Storage) -> None:
    left(storage, "far-away", 7, age_s=0)
    leaving = threading.Timer(0.1, storage.delete, ("lease.json",))
    leaving.start()
    assert seen(storage, watch_s=5) is None
    leaving.join()


def test_a_lease_that_cannot_be_read_has_an_unknown_holder(storage: Storage) -> None:
    storage.write_text("lease.json", "half of a")
    result = seen(storage)
    assert result is not None
    assert (result.host, result.process, result.is_alive) == ("unknown", 0, False)
