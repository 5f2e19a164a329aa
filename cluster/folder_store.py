"""Storage in a folder of a file system.

Every file is written under a temporary name in the same folder, flushed to the disk and renamed: a
reader sees the old or the new content, never a part. Temporary names start with a dot and end with
`.tmp` (`.lock` for the lock files of `swap`); they are never listed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.store import WAY_OUT, StorageError, is_temporary


class FolderStore:
    """Files of a folder, by key; keys have been validated by the caller."""

    def __init__(self, folder: Path) -> None:
        """Describe the store; nothing is read or created."""
        self._folder = folder
        self.uri = str(folder)

    def path(self, key: str = "") -> Path:
        """Path of `key`."""
        return self._folder / key if key else self._folder

    def where(self, key: str = "") -> str:
        """Path of `key`, as text for messages."""
        return str(self.path(key))

    def exists(self, key: str) -> bool:
        """Whether `key` is a file or a folder."""
        return self.path(key).exists()

    def sizes(self, prefix: str) -> dict[str, int]:
        """Sizes in bytes of the file `prefix`, or of all files below this folder, by key.

        Temporary files are left out. Files removed during the call may or may not be included.
        """
        return {key: size for key, size in self._all(prefix) if not _is_temporary(key)}

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below a folder."""
        path = self.path(prefix)
        with _named_errors("cannot list", path):
            return (
                [child.name for child in path.iterdir() if child.is_dir()] if path.is_dir() else []
            )

    def modified(self, key: str) -> float | None:
        """Time of the last modification, seconds since 1970; None if there is no such file."""
        try:
            return self.path(key).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None

    def find(self, key: str) -> bytes | None:
        """Content of a file, or None if there is none."""
        with _named_errors("cannot read", self.path(key)):
            try:
                return self.path(key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, key: str, data: bytes) -> None:
        """Replace a file atomically."""
        self._write(key, lambda temporary: _write_synced(temporary, data))

    def write_folder(self, local: Path, key: str) -> None:
        """Replace a folder by a copy of a local one, completely or not at all."""
        self._write(key, lambda temporary: _copy_synced(local, temporary))

    def delete(self, key: str) -> None:
        """Remove a file or folder; a missing one is not an error."""
        with _named_errors("cannot delete", self.path(key)):
            _remove(self.path(key))

    def unfinished_bytes(self) -> int:
        """Total size of temporary files: of killed writers and of active ones."""
        return sum(size for key, size in self._all("") if _is_temporary(key, (".tmp",)))

    def delete_unfinished(self) -> None:
        """Remove all temporary files; to be called by the owner of the storage only."""
        for path in sorted(self._folder.rglob(".*.tmp")):
            with _named_errors("cannot delete", path):
                _remove(path)

    def swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace a file if its content is still `old` (compare-and-swap); return whether it was.

        Atomic among all callers, also on other hosts if the file system supports locks.
        """
        with self._locked(key):
            if self.find(key) != old:
                return False
            if new is None:
                self.delete(key)
            else:
                self.write(key, new)
            return True

    def check_writable(self) -> None:
        """Check by a write that leaves nothing behind."""
        folder = next(
            path for path in (self._folder, *self._folder.parents) if os.path.lexists(path)
        )
        try:
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
            os.rmdir(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
        except OSError as error:
            raise StorageError(
                f"storage {self.uri} cannot be written: {error.strerror}; {WAY_OUT}"
            ) from error

    def _all(self, prefix: str) -> Iterator[tuple[str, int]]:
        # Not rglob: it raises if a folder is removed while it is being listed.
        below = (Path(at, name) for at, _, names in os.walk(self.path(prefix)) for name in names)
        for path in (self.path(prefix), *below):
            size = _size(path)
            if size is not None:
                yield path.relative_to(self._folder).as_posix(), size

    def _write(self, key: str, make: Callable[[Path], None]) -> None:
        target = self.path(key)
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
        target = self.path(key)
        with _named_errors("cannot lock", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Never removed: a process waiting for it would get a lock that nobody shares.
            guard = os.open(target.with_name(f".{target.name}.lock"), os.O_CREAT | os.O_RDWR, 0o666)
        try:
            with _named_errors("cannot lock", target):
                fcntl.flock(guard, fcntl.LOCK_EX)
            yield
        finally:
            os.close(guard)


def _is_temporary(key: str, ends: tuple[str, ...] = (".tmp", ".lock")) -> bool:
    return any(is_temporary(part, ends) for part in key.split("/"))


def _size(path: Path) -> int | None:
    """Size of a file; None if it is not a file, or no longer exists."""
    try:
        return path.stat().st_size if path.is_file() else None
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _named_errors(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what} {path}: {error.strerror or error}") from error


def _write_synced(path: Path, data: bytes) -> None:
    # Not tempfile: its files are never readable by the group, whatever the umask is.
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
    """Rename `temporary` to `target`. An existing folder is moved aside first, then removed."""
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
