"""Storage: one folder that holds everything a job makes.

A key names a file in it by "/"-separated words, relative to the folder. Every file is written to a
temporary name beside its place, flushed to the disk and renamed: a reader meets the old content or
the new one, never a part. Temporary names start with a dot and end with `.tmp` (`.lock` for the
guards of `swap`); they are never listed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

WAY_OUT = "name a folder that you may write, e.g. ~/proxyless"


class StorageError(Exception):
    """A storage, or a file in it, cannot be used as asked."""


class Storage:
    """A folder, addressed by keys."""

    def __init__(self, uri: str) -> None:
        """Names the folder; nothing is read or made until a key is used.

        Args:
            uri: path of the folder, `~` allowed; it need not exist yet.

        Raises:
            StorageError: `uri` is no path.
        """
        self._path = _folder_of(uri)
        self.uri = str(self._path)

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    def sub(self, key: str) -> Storage:
        """The storage that begins at `key` of this one."""
        return Storage(str(self.path(key)))

    def path(self, key: str = "") -> Path:
        """Where `key` lies on this machine; the folder itself for an empty key."""
        return self._path / _checked(key) if key else self._path

    def exists(self, key: str) -> bool:
        """Whether `key` is a file or a folder here."""
        return self.path(key).exists()

    def list(self, prefix: str = "") -> list[str]:
        """Keys of all files below the folder `prefix`, sorted; temporary ones left out.

        What others remove meanwhile may be left out or not.
        """
        # Not rglob: it raises where a folder is removed before it has looked into it.
        found = (Path(at, name) for at, _, names in os.walk(self.path(prefix)) for name in names)
        keys = (path.relative_to(self._path) for path in found if path.is_file())
        return sorted(key.as_posix() for key in keys if not any(map(_is_temporary, key.parts)))

    def read_bytes(self, key: str) -> bytes:
        with _named_errors("cannot read", self.path(key)):
            return self.path(key).read_bytes()

    def read_text(self, key: str) -> str:
        return self.read_bytes(key).decode("utf-8")

    def read_json(self, key: str) -> Any:
        return self._parsed(key, self.read_bytes(key))

    def find_bytes(self, key: str) -> bytes | None:
        """Content of the file `key`, None where there is none."""
        with _named_errors("cannot read", self.path(key)):
            try:
                return self.path(key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def find_json(self, key: str) -> Any:
        """What the file `key` holds, None where there is none."""
        data = self.find_bytes(key)
        return None if data is None else self._parsed(key, data)

    def write_bytes(self, key: str, data: bytes) -> None:
        """Replaces the content of `key`, as a whole."""
        self._write(key, lambda temporary: _write_synced(temporary, data))

    def write_text(self, key: str, text: str) -> None:
        self.write_bytes(key, text.encode("utf-8"))

    def write_json(self, key: str, value: Any) -> None:
        """Writes `value` for people to read; refuses NaN and infinity, which JSON does not have."""
        self.write_text(
            key, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        )

    def write_folder(self, local: Path, key: str) -> None:
        """Makes `key` a copy of the folder `local`, whole or not at all."""
        self._write(key, lambda temporary: _copy_synced(local, temporary))

    def copy_to(self, folder: Path, keys: Sequence[str], below: str = "") -> None:
        """Copies files to `folder`, under their names below `below`."""
        for key in keys:
            path = folder / key.removeprefix(f"{below}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read_bytes(key))

    def delete(self, key: str) -> None:
        """Removes the file or folder `key`; a missing one is no error."""
        with _named_errors("cannot delete", self.path(_checked(key))):
            _remove(self.path(key))

    def delete_temporary(self) -> None:
        """Removes what killed writers left, and what living ones write: for the owner alone."""
        for path in sorted(self._path.rglob(".*.tmp")):
            with _named_errors("cannot delete", path):
                _remove(path)

    def swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replaces the content of `key` only where it still is `old`; None stands for no file.

        Atomic among all who change the file with `swap`, on this host and on others that share the
        folder through a file system with locks.

        Returns:
            Whether the content was `old`, and so is `new` now.
        """
        with self._locked(key):
            if self.find_bytes(key) != old:
                return False
            if new is None:
                self.delete(key)
            else:
                self.write_bytes(key, new)
            return True

    def check_writable(self) -> None:
        """Tries to write, leaving nothing behind.

        Raises:
            StorageError: the folder cannot be written or made; names path, reason and way out.
        """
        folder = next(path for path in (self._path, *self._path.parents) if os.path.lexists(path))
        try:
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
            os.rmdir(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
        except OSError as error:
            raise StorageError(
                f"storage {self.uri} cannot be written: {error.strerror}; {WAY_OUT}"
            ) from error

    def _parsed(self, key: str, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise StorageError(f"{self.path(key)} is not JSON ({error}); delete it") from error

    def _write(self, key: str, make: Callable[[Path], None]) -> None:
        target = self.path(_checked(key))
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        with _named_errors("cannot write", target):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                make(temporary)
                _put(temporary, target)
            finally:
                _remove(temporary)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        target = self.path(_checked(key))
        with _named_errors("cannot lock", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Never removed: whoever waits for a removed file gets a lock that nobody shares.
            guard = os.open(target.with_name(f".{target.name}.lock"), os.O_CREAT | os.O_RDWR, 0o666)
        try:
            with _named_errors("cannot lock", target):
                fcntl.flock(guard, fcntl.LOCK_EX)
            yield
        finally:
            os.close(guard)


def _folder_of(uri: str) -> Path:
    scheme, separator, _ = uri.partition("://")
    if separator:
        raise StorageError(f"storage {uri}: {scheme}:// is not supported yet; {WAY_OUT}")
    if not uri.strip():
        raise StorageError(f"storage is empty; {WAY_OUT}")
    try:
        return Path(uri).expanduser().absolute()
    except RuntimeError as error:  # ~somebody who does not exist
        raise StorageError(f"storage {uri}: {error}; {WAY_OUT}") from error


def _checked(key: str) -> str:
    """`key`, if it names something inside the storage."""
    words = key.split("/")
    if any(word in ("", ".", "..") or "\\" in word or "\0" in word for word in words):
        raise StorageError(
            f"{key!r} is no key; expected words between '/', without '..' and not starting with '/'"
        )
    if any(map(_is_temporary, words)):
        raise StorageError(
            f"{key!r} is no key; names like '.x.tmp' and '.x.lock' are kept for writing"
        )
    return str(PurePosixPath(key))


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith((".tmp", ".lock"))


@contextmanager
def _named_errors(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what} {path}: {error.strerror or error}") from error


def _write_synced(path: Path, data: bytes) -> None:
    # Not tempfile: its files are closed to the group, whatever the umask says.
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy_synced(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{source} is not a folder")
    shutil.copytree(source, target)
    for path in target.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def _put(temporary: Path, target: Path) -> None:
    """Gives `temporary` its name. A folder in the way is set aside first, then removed."""
    if not target.is_dir():
        os.replace(temporary, target)
        return
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    os.rename(target, aside)
    os.rename(temporary, target)
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
