"""Storage: a folder, or a prefix of a bucket, that holds everything a job produces.

A key names a file in it, as names separated by "/". A reader sees the old content of a file or the
new one, never a part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.folder_store import FolderStore
from cluster.store import WAY_OUT, StorageError, Store, is_temporary

__all__ = ["HOME", "Storage", "StorageError"]

HOME = "~/proxyless"
"""Default storage."""


class Storage:
    """A folder or a prefix of a bucket, addressed by keys."""

    def __init__(self, uri: str) -> None:
        """Describe the storage; nothing is read or created until a key is used.

        Args:
            uri: path of a folder, `~` allowed, or `s3://<bucket>/<prefix>`; it need not exist yet.
                Endpoint, region and credentials of S3 are the usual ones of AWS.

        Raises:
            StorageError: `uri` is neither.
        """
        self._store = _store_of(uri)
        self.uri = self._store.uri

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    def sub(self, key: str) -> Storage:
        """The storage that starts at `key` of this one."""
        return Storage(self.where(key))

    @property
    def name(self) -> str:
        """Last component of its path or prefix."""
        return self.uri.rpartition("/")[2]

    @property
    def parent(self) -> Storage:
        """The storage that contains this one.

        Raises:
            StorageError: this one is a whole bucket.
        """
        above = self.uri.rpartition("/")[0]
        if above == "s3:/":
            raise StorageError(f"{self.uri} is a whole bucket; expected a prefix in it")
        return Storage(above or "/")

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of a file system."""
        return isinstance(self._store, FolderStore)

    def where(self, key: str = "") -> str:
        """Path or address of `key`, for messages."""
        return self._store.where(_checked(key) if key else "")

    def path(self, key: str = "") -> Path:
        """Path of `key` in the file system; that of the storage for an empty key.

        Raises:
            StorageError: the storage is not in a file system.
        """
        if not self.is_local:
            raise StorageError(f"{self.where(key)} is no path; expected a folder")
        return Path(self.where(key))

    def exists(self, key: str) -> bool:
        """Whether `key` is a file or a folder in this storage."""
        return self._store.exists(_checked(key) if key else "")

    def folders(self, prefix: str = "") -> Sequence[str]:
        """Names of the folders directly below the folder `prefix`, sorted."""
        names = self._store.folders(_checked(prefix) if prefix else "")
        return sorted(name for name in names if not is_temporary(name))

    def list(self, prefix: str = "") -> list[str]:
        """Keys of all files below the folder `prefix`, sorted, without temporary files.

        Files removed during the call may or may not be included.
        """
        return sorted(set(self._sizes(prefix)) - {prefix})

    def size_bytes(self, prefix: str = "") -> int:
        """Total size of all files below the folder `prefix`, or of the file with that key."""
        return sum(self._sizes(prefix).values())

    def _sizes(self, prefix: str) -> dict[str, int]:
        return self._store.sizes(_checked(prefix) if prefix else "")

    def modified(self, key: str) -> float | None:
        """Time of the last write of the file `key`, seconds since 1970 by the clock of the storage.

        None if there is no such file.
        """
        return self._store.modified(_checked(key))

    def read_bytes(self, key: str) -> bytes:
        data = self.find_bytes(key)
        if data is None:
            raise StorageError(f"cannot read {self.where(key)}: No such file or directory")
        return data

    def read_text(self, key: str) -> str:
        return self.read_bytes(key).decode("utf-8")

    def read_json(self, key: str) -> Any:
        return self._parsed(key, self.read_bytes(key))

    def find_bytes(self, key: str) -> bytes | None:
        """Content of the file `key`, or None if there is none."""
        return self._store.find(_checked(key))

    def find_json(self, key: str) -> Any:
        """Parsed content of the JSON file `key`, or None if there is none."""
        data = self.find_bytes(key)
        return None if data is None else self._parsed(key, data)

    def write_bytes(self, key: str, data: bytes) -> None:
        """Replace the content of `key` atomically."""
        self._store.write(_checked(key), data)

    def write_text(self, key: str, text: str) -> None:
        self.write_bytes(key, text.encode("utf-8"))

    def write_json(self, key: str, value: Any) -> None:
        """Write `value` as indented JSON; raises for NaN and infinity, which JSON does not have."""
        self.write_text(
            key, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        )

    def write_folder(self, local: Path, key: str) -> None:
        """Replace `key` by a copy of the folder `local`.

        In a file system the copy appears completely or not at all. In S3 it appears file by file:
        whatever refers to the folder has to be written after it.
        """
        self._store.write_folder(local, _checked(key))

    def copy_to(self, folder: Path, keys: Sequence[str], below: str = "") -> None:
        """Copy files to `folder`, under their names relative to `below`."""
        for key in keys:
            path = folder / key.removeprefix(f"{below}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read_bytes(key))

    def delete(self, key: str) -> None:
        """Remove the file or folder `key`; a missing one is not an error."""
        self._store.delete(_checked(key))

    def unfinished_bytes(self) -> int:
        """Total size of temporary files: of killed writers and of active ones."""
        return self._store.unfinished_bytes()

    def delete_unfinished(self) -> None:
        """Remove all temporary files; to be called by the owner of the storage only."""
        self._store.delete_unfinished()

    def swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace the content of `key` if it is still `old` (compare-and-swap); None means no file.

        Atomic among all callers of `swap`: on this host, and on others that share the bucket, or
        the folder through a file system with locks.

        Returns:
            Whether the content was `old`, and therefore is `new` now.
        """
        return self._store.swap(_checked(key), old, new)

    def check_writable(self) -> None:
        """Check by a write that leaves nothing behind.

        Raises:
            StorageError: it cannot be written or created; the message has path, reason and remedy.
        """
        self._store.check_writable()

    def _parsed(self, key: str, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise StorageError(f"{self.where(key)} is not JSON ({error}); delete it") from error


def _store_of(uri: str) -> Store:
    scheme, separator, _ = uri.partition("://")
    if scheme == "s3" and separator:
        from cluster.s3_store import s3_store  # imported late: a folder needs no S3 client

        return s3_store(uri)
    if separator:
        raise StorageError(f"storage {uri}: {scheme}:// is not supported; {WAY_OUT}, or s3://")
    if not uri.strip():
        raise StorageError(f"storage is empty; {WAY_OUT}")
    try:
        return FolderStore(Path(uri).expanduser().absolute())
    except RuntimeError as error:  # `~user` of an unknown user
        raise StorageError(f"storage {uri}: {error}; {WAY_OUT}") from error


def _checked(key: str) -> str:
    """Return `key` if it is valid and inside the storage."""
    names = key.split("/")
    if any(name in ("", ".", "..") or "\\" in name or "\0" in name for name in names):
        raise StorageError(
            f"{key!r} is no key; expected words between '/', without '..' and not starting with '/'"
        )
    if any(map(is_temporary, names)):
        raise StorageError(
            f"{key!r} is no key; names like '.x.tmp' and '.x.lock' are kept for writing"
        )
    return str(PurePosixPath(key))
