"""A lease: one driver at a time owns a job's folder.

The owner writes a file with its identity and renews it every few seconds. Any other process watches
the file with its own clock, so that clocks of two hosts are never compared: if the file changes,
its owner is alive; if it stays the same for the expiry time, its owner is dead and the lease is
taken over. Every change is a compare-and-swap of the storage, so of two processes that take over at
once, one succeeds.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from types import TracebackType

from cluster.storage import Storage, StorageError

logger = logging.getLogger(__name__)

FORMAT = "lease/1"
LEASE_FILE = "lease.json"

RENEW_S, EXPIRE_S = 5.0, 30.0
"""Time between two renewals; time without renewal after which a lease may be taken over."""


class LeaseHeld(StorageError):  # noqa: N818  # a regular answer, not a failure
    """Another process owns the folder."""

    def __init__(self, path: str, host: str, process: int, since: str) -> None:
        super().__init__(path, host, process, since)
        self.path, self.host, self.process, self.since = path, host, process, since

    def __str__(self) -> str:
        return (
            f"{self.path} is held by process {self.process} on host {self.host} "
            f"since {self.since}; wait for it to end, or stop it"
        )


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Content of a lease file."""

    host: str
    process: int
    since: str
    token: str
    """Distinguishes two owners with the same process number."""
    renewal: int = 0

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()


class Lease:
    """Holds a folder while its `with` block runs.

    `lost` is set when another process has taken the lease, which happens if the owner could not
    renew it for `expire_s`. The owner must then stop writing.
    """

    def __init__(
        self,
        storage: Storage,
        key: str = LEASE_FILE,
        *,
        renew_s: float = RENEW_S,
        expire_s: float = EXPIRE_S,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """Describe the lease; the `with` block acquires it.

        Args:
            storage: the folder to own.
            key: key of the lease file in it.
            renew_s: seconds between two renewals.
            expire_s: seconds without renewal after which the lease may be taken over.
            on_lost: called once, in the renewing thread, when the lease is lost.
        """
        if not 0 < 2 * renew_s <= expire_s:
            raise ValueError(
                f"renew_s is {renew_s} and expire_s {expire_s}; expected two renewals or more "
                "within an expiry"
            )
        self.lost = threading.Event()
        self._storage, self._key, self._path = storage, key, storage.where(key)
        self._renew_s, self._expire_s = renew_s, expire_s
        self._on_lost = on_lost
        self._released = threading.Event()
        self._content = b""
        self._renewer: threading.Thread | None = None

    def __enter__(self) -> Lease:
        """Acquire the lease; wait up to `expire_s` if its owner may be dead.

        Raises:
            LeaseHeld: its owner is alive.
            StorageError: the folder cannot be written.
        """
        owner = _this_process()
        self._acquire(owner.to_bytes())
        self._released.clear()
        self._renewer = threading.Thread(
            target=self._renew_until_released, args=(owner,), name="lease", daemon=True
        )
        self._renewer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        assert self._renewer is not None
        self._renewer.join()
        if not self.lost.is_set():
            self._storage.swap(self._key, self._content, None)

    def _acquire(self, mine: bytes) -> None:
        dead = self._watch_for_death(self._read())
        while not self._storage.swap(self._key, dead, mine):  # another process was faster
            dead = self._watch_for_death(self._read())
        if dead is not None:
            logger.warning("took over %s from an owner that is no longer alive", self._path)
        self._content = mine

    def _watch_for_death(self, content: bytes | None) -> bytes | None:
        """Wait until the lease expires; return its content, or None once the file is gone."""
        if content is not None:
            logger.info("%s; waiting to see whether it is alive", _held(self._path, content))
        deadline = time.monotonic() + self._expire_s
        while content is not None and time.monotonic() < deadline:
            time.sleep(min(self._renew_s, 1.0) / 5)
            now = self._read()
            if now is not None and now != content:
                raise _held(self._path, now)
            content = now
        return content

    def _read(self) -> bytes | None:
        return self._storage.find_bytes(self._key)

    def _renew_until_released(self, owner: Owner) -> None:
        renewed = time.monotonic()
        while not self._released.wait(self._renew_s):
            owner = replace(owner, renewal=owner.renewal + 1)
            try:
                if not self._storage.swap(self._key, self._content, owner.to_bytes()):
                    return self._lose("another took it")
                self._content, renewed = owner.to_bytes(), time.monotonic()
            except StorageError as error:
                logger.warning("cannot renew the lease: %s", error)
                if time.monotonic() - renewed > self._expire_s:
                    return self._lose(f"it could not be renewed for {self._expire_s:g} s")
        return None

    def _lose(self, reason: str) -> None:
        logger.error("lost %s: %s; nothing more may be written there", self._path, reason)
        self.lost.set()
        if self._on_lost:
            self._on_lost()


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Owner of a lease, as seen by another process."""

    host: str
    process: int
    since: str
    renewed: float
    """Time of the last write, seconds since 1970, by the clock of the file system."""
    is_alive: bool


def holder(
    storage: Storage,
    key: str = LEASE_FILE,
    *,
    expire_s: float = EXPIRE_S,
    watch_s: float = RENEW_S + 1,
) -> Holder | None:
    """The owner of a lease; nothing is written.

    If the owner is a process of this host, it is looked up, and the age of the file is checked. If
    these two disagree, or the owner is on another host, the file is watched for `watch_s`: if it
    changes, the owner is alive.

    Returns:
        None if nobody holds the lease, or no longer at the end.
    """
    content, renewed = storage.find_bytes(key), storage.modified(key)
    if content is None or renewed is None:
        return None
    held = _held(storage.where(key), content)
    is_here = held.host == socket.gethostname()
    is_alive = is_here and _is_running(held.process)
    if not is_here or is_alive != (time.time() - renewed < expire_s):
        now = _watched(storage, key, content, watch_s)
        if now is None:
            return None
        is_alive = now != content
    return Holder(
        host=held.host, process=held.process, since=held.since, renewed=renewed, is_alive=is_alive
    )


def _watched(storage: Storage, key: str, content: bytes, watch_s: float) -> bytes | None:
    """Wait for the content to change, at most `watch_s`; return the last content read."""
    deadline, now = time.monotonic() + watch_s, storage.find_bytes(key)
    while now == content and time.monotonic() < deadline:
        time.sleep(min(0.2, watch_s / 5))
        now = storage.find_bytes(key)
    return now


def _is_running(process: int) -> bool:
    """Whether this host has a process of this number; 0 and below would mean a group."""
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True


def _this_process() -> Owner:
    return Owner(
        host=socket.gethostname(),
        process=os.getpid(),
        since=datetime.now().astimezone().isoformat(timespec="seconds"),
        token=uuid.uuid4().hex,
    )


def _held(path: str, content: bytes) -> LeaseHeld:
    """The error that names the owner, as far as the file can be read."""
    try:
        owner = json.loads(content)
        return LeaseHeld(path, owner["host"], owner["process"], owner["since"])
    except (ValueError, KeyError, TypeError):
        return LeaseHeld(path, "unknown", 0, "unknown")
