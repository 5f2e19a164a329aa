"""What a storage asks of the place that it lies in: a folder, or a prefix of a bucket."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""Environment variables that say where S3 is; none is secret. Of each the first counts."""

ATTEMPTS = 10
"""Of every request to S3; the waits between them come to half a minute or more."""
TIMEOUT_S = 20.0
"""Of connecting, and between two parts of an answer."""

WAY_OUT = "name a folder that you may write, e.g. ~/proxyless"


class StorageError(Exception):
    """A storage, or a file in it, cannot be used as asked."""


class Store(Protocol):
    """Files by key. All raise StorageError where the place cannot be used, with the reason."""

    uri: str

    def where(self, key: str = "") -> str:
        """A key, or the whole, for people."""
        ...

    def exists(self, key: str) -> bool:
        """Whether it is a file or a folder."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of the file of that key, or of all finished ones below that folder, by key."""
        ...

    def folders(self, prefix: str) -> Iterable[str]:
        """Names of those right below a folder."""
        ...

    def modified(self, key: str) -> float | None:
        """When a file was written last, seconds since 1970, by the clock of the place."""
        ...

    def find(self, key: str) -> bytes | None:
        """Content of a file, None where there is none."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Replace a file as a whole."""
        ...

    def write_folder(self, local: Path, key: str) -> None:
        """Make a folder a copy of a local one."""
        ...

    def delete(self, key: str) -> None:
        """Remove a file or folder; a missing one is no error."""
        ...

    def unfinished_bytes(self) -> int:
        """Of what killed writers left, and of what living ones write."""
        ...

    def delete_unfinished(self) -> None:
        """Remove it: for the owner alone."""
        ...

    def swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace a file where its content is still `old`, in one step; whether it was."""
        ...

    def check_writable(self) -> None:
        """Try to write, leaving nothing behind."""
        ...


def is_temporary(name: str, ends: Collection[str] = (".tmp", ".lock")) -> bool:
    """Whether a name is kept for writing."""
    return name.startswith(".") and name.endswith(tuple(ends))
