"""A lease: one driver at a time owns a job's folder.

The owner writes a file that names it and renews it every few seconds. Whoever finds the file
watches it with its own clock, so that clocks of two hosts are never compared: a file that changes
has a living owner, a file that stays as it is for the time of expiry has a dead one and is taken
over. Every change is a compare-and-swap of the storage: of two that take over at once, one wins.
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
"""Between two renewals; without one for how long a lease may be taken."""


class LeaseHeld(StorageError):  # noqa: N818  # who holds it is an answer, not a failure
    """Someone else owns the folder."""

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
    """Content of the file of a lease."""

    host: str
    process: int
    since: str
    token: str
    """Tells two owners of the same process number apart."""
    renewal: int = 0

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()


class Lease:
    """Holds a folder while its `with` block runs.

    `lost` is set when another has taken the lease, as happens to an owner that could not renew it
    for `expire_s`: it must stop writing.
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
        """Describes the lease; the `with` block acquires it.

        Args:
            storage: the folder to own.
            key: file of the lease in it.
            renew_s: seconds between two renewals.
            expire_s: a lease that was not renewed for so many seconds may be taken.
            on_lost: called once, in the renewing thread, when the lease was lost.
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
        """Acquires the lease; waits up to `expire_s` for one whose owner may be dead.

        Raises:
            LeaseHeld: its owner lives.
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
        while not self._storage.swap(self._key, dead, mine):  # another was faster
            dead = self._watch_for_death(self._read())
        if dead is not None:
            logger.warning("took over %s from an owner that is gone", self._path)
        self._content = mine

    def _watch_for_death(self, found: bytes | None) -> bytes | None:
        """The content that nobody renews, or None as soon as there is no file."""
        if found is not None:
            logger.info("%s; waiting to see whether that lives", _held(self._path, found))
        deadline = time.monotonic() + self._expire_s
        while found is not None and time.monotonic() < deadline:
            time.sleep(min(self._renew_s, 1.0) / 5)
            now = self._read()
            if now is not None and now != found:
                raise _held(self._path, now)
            found = now
        return found

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
    """Who holds a lease, seen from outside."""

    host: str
    process: int
    since: str
    renewed: float
    """When the file was last written, seconds since 1970, by the clock of its file system."""
    is_alive: bool


def holder(
    storage: Storage,
    key: str = LEASE_FILE,
    *,
    expire_s: float = EXPIRE_S,
    watch_s: float = RENEW_S + 1,
) -> Holder | None:
    """Who holds a lease; nothing is written, and nobody is disturbed.

    A process of this host is looked up, and so is the age of the file. Where these two differ, or
    the host is another, the file is watched for `watch_s`: if it changes its owner lives.

    Returns:
        None where nobody holds it, or no longer at the end.
    """
    content, renewed = storage.find_bytes(key), storage.modified(key)
    if content is None or renewed is None:
        return None
    who = _held(storage.where(key), content)
    is_here = who.host == socket.gethostname()
    is_alive = is_here and _is_running(who.process)
    if not is_here or is_alive != (time.time() - renewed < expire_s):
        now = _watched(storage, key, content, watch_s)
        if now is None:
            return None
        is_alive = now != content
    return Holder(
        host=who.host, process=who.process, since=who.since, renewed=renewed, is_alive=is_alive
    )


def _watched(storage: Storage, key: str, found: bytes, watch_s: float) -> bytes | None:
    """The content as soon as it is another, or at the end."""
    deadline, now = time.monotonic() + watch_s, storage.find_bytes(key)
    while now == found and time.monotonic() < deadline:
        time.sleep(min(0.2, watch_s / 5))
        now = storage.find_bytes(key)
    return now


def _is_running(process: int) -> bool:
    """Whether this host has a process of this number; 0 and below would name a group."""
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of somebody else
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
    """Who holds it, as far as the file tells."""
    try:
        owner = json.loads(content)
        return LeaseHeld(path, owner["host"], owner["process"], owner["since"])
    except (ValueError, KeyError, TypeError):
        return LeaseHeld(path, "unknown", 0, "unknown")
