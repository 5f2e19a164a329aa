"""Protocol of what a storage is based on: a folder, or a prefix of a bucket."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""Environment variables with endpoint and region of S3, not secret. The first one set counts."""

ATTEMPTS = 10
"""Attempts per request to S3; the waits between them add up to half a minute or more."""
TIMEOUT_S = 20.0
"""Time limit for connecting, and between two parts of a response."""

WAY_OUT = "name a folder that you may write, e.g. ~/proxyless"


class StorageError(Exception):
    """A storage, or a file in it, cannot be used as asked."""


class Store(Protocol):
    """Files by key. All methods raise StorageError if the store cannot be used."""

    uri: str

    def where(self, key: str = "") -> str:
        """Path or address of a key, or of the whole store, for messages."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the key is a file or a folder."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Sizes in bytes of the file `prefix`, or of all finished files below it, by key."""
        ...

    def folders(self, prefix: str) -> Iterable[str]:
        """Names of the folders directly below a folder."""
        ...

    def modified(self, key: str) -> float | None:
        """Time of the last write, seconds since 1970, by the clock of the store; None: no file."""
        ...

    def find(self, key: str) -> bytes | None:
        """Content of a file, or None if there is none."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Replace a file atomically."""
        ...

    def write_folder(self, local: Path, key: str) -> None:
        """Replace a folder by a copy of a local one."""
        ...

    def delete(self, key: str) -> None:
        """Remove a file or folder; a missing one is not an error."""
        ...

    def unfinished_bytes(self) -> int:
        """Total size of temporary files: of killed writers and of active ones."""
        ...

    def delete_unfinished(self) -> None:
        """Remove all temporary files; to be called by the owner of the storage only."""
        ...

    def swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace a file if its content is still `old`, atomically; return whether it was."""
        ...

    def check_writable(self) -> None:
        """Check by a write that leaves nothing behind."""
        ...


def is_temporary(name: str, ends: Collection[str] = (".tmp", ".lock")) -> bool:
    """Whether a name is reserved for temporary files and locks."""
    return name.startswith(".") and name.endswith(tuple(ends))
