"""Data source `parquet`: inspect its files. Needs no torch.

The driver reads the footers of the files only: they hold the columns, the number of rows and the
range of labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster.storage import Storage, StorageError
from orchestration.config.data import DataSettings
from orchestration.config.digest import digest
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import CONVERSION_FILE
from orchestration.data.info import DataFacts
from orchestration.data.parquet.manifest import Manifest, find_manifest

READERS = 16
"""Number of footers that are read at a time."""


@dataclass(frozen=True)
class File:
    """Facts from the footer of a Parquet file."""

    name: str
    rows: int
    most: int
    """Highest label."""
    content: str
    """Digest of the file's layout. Equal files have equal digests."""


@dataclass(frozen=True)
class ImageFiles:
    """A set of Parquet files."""

    folder: Storage
    manifest: Manifest | None
    """Manifest of a set that this project converted; None for other sets."""
    files: tuple[File, ...]
    classes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(file.rows for file in self.files)

    @property
    def fingerprint(self) -> str:
        """Digest of the content; without a manifest, of the layout and sizes of the files."""
        if self.manifest is not None:
            return self.manifest.fingerprint
        return digest({"files": [[file.name, file.content] for file in self.files]})


def describe_parquet(settings: DataSettings) -> DataFacts:
    """Inspect the files without reading their images.

    Raises:
        SpecError: a file cannot be used as training data; the message names it.
    """
    files = image_files(settings)
    channels = settings.channels or 3
    return DataFacts(
        classes=files.classes,
        channels=channels,
        resolution=settings.resolution,
        count=files.count,
        test_count=round(settings.test_share * files.count),
        fingerprint=_fingerprint(files, settings),
    )


def _fingerprint(files: ImageFiles, settings: DataSettings) -> str:
    columns = digest({"key": settings.columns.key, "classes": list(files.classes)})
    return f"parquet/{files.fingerprint}-{columns[:8]}"


def unchanged_files(settings: DataSettings, facts: DataFacts) -> ImageFiles:
    """Files of a set that the driver has described.

    Raises:
        SpecError: a file cannot be used, or the files differ from `facts`.
    """
    files = image_files(settings)
    facts.check_unchanged(_fingerprint(files, settings))
    return files


def image_files(settings: DataSettings) -> ImageFiles:
    """Files of a set, after each was inspected.

    Raises:
        SpecError: there are none, or one cannot be used.
    """
    try:
        folder = Storage(str(settings.path))
        manifest = find_manifest(folder)
        names = _names(folder, manifest)
        sizes = {} if manifest is None else {shard.name: shard.bytes for shard in manifest.shards}
        with ThreadPoolExecutor(READERS) as pool:
            looks = [pool.submit(_look, folder, name, settings, sizes.get(name)) for name in names]
            files = tuple(look.result() for look in looks)
    except StorageError as error:
        raise SpecError(f"data.path: {error}") from None
    classes = _classes(settings, manifest, files)
    for file in files:
        if file.most >= len(classes):
            raise SpecError(
                f"data.path: {folder.where(file.name)} has the label {file.most}; expected 0 to "
                f"{len(classes) - 1}, for {len(classes)} classes"
            )
    return ImageFiles(folder, manifest, files, classes)


def _names(folder: Storage, manifest: Manifest | None) -> Sequence[str]:
    there = [name for name in folder.list() if name.endswith(".parquet")]
    if manifest is None:
        if not there:
            raise SpecError(
                f"data.path: {folder.uri} holds no .parquet file; `proxyless data convert` makes "
                "them from a folder of images"
            )
        if folder.exists(CONVERSION_FILE):
            raise SpecError(
                f"data.path: the conversion into {folder.uri} is not finished; the same command "
                "goes on"
            )
        return there
    missing = [shard.name for shard in manifest.shards if shard.name not in there]
    if missing:
        raise SpecError(
            f"data.path: {folder.where(missing[0])} is missing, which the manifest names; "
            "convert the images again"
        )
    return [shard.name for shard in manifest.shards]


def _classes(
    settings: DataSettings, manifest: Manifest | None, files: Sequence[File]
) -> tuple[str, ...]:
    if settings.classes is not None:
        return settings.classes
    if manifest is not None:
        return manifest.classes
    return tuple(str(label) for label in range(max(file.most for file in files) + 1))


def _look(folder: Storage, name: str, settings: DataSettings, size: int | None) -> File:
    """Check a file by its footer."""
    import pyarrow.parquet as pq

    from cluster.files import open_file

    location = f"data.path: {folder.where(name)}"
    if size is not None and folder.size_bytes(name) != size:
        raise SpecError(
            f"{location} has {folder.size_bytes(name)} bytes, and the manifest says {size}; "
            "convert the images again"
        )
    with whole_parquet(folder.where(name)), open_file(folder.where(name)) as source:
        file = pq.ParquetFile(source)
        _check_columns(file.schema_arrow, settings, location)
        if file.metadata.num_rows == 0:
            raise SpecError(f"{location} has no rows; remove it")
        most = _most(file, settings.columns.label, location)
        return File(name, file.metadata.num_rows, most, _layout(file.metadata))


@contextmanager
def whole_parquet(location: str) -> Iterator[None]:
    """Raise SpecError with the name of the file if it is truncated, corrupt or missing."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(
            f"data.path: {location} is no whole Parquet file ({reason}); replace it"
        ) from None


def keys_of(table: Any, column: str | None, location: str) -> list[str]:
    """Keys of the rows of a file: from a column, else "<file name>:<row number>".

    Raises:
        SpecError: a row has no key.
    """
    if column is None:
        name = location.rpartition("/")[2]
        return [f"{name}:{row}" for row in range(table.num_rows)]
    keys: list[str | None] = table.column(column).to_pylist()
    if None in keys:
        raise SpecError(f"data.path: {location} has no key in row {keys.index(None)}; give it one")
    return [str(key) for key in keys]


def _check_columns(schema: Any, settings: DataSettings, location: str) -> None:
    import pyarrow.types as kinds

    columns = settings.columns
    wanted = {"image": columns.image, "label": columns.label, "key": columns.key}
    rules = {
        "image": (lambda t: kinds.is_binary(t) or kinds.is_large_binary(t), "bytes"),
        "label": (kinds.is_integer, "whole numbers"),
        "key": (lambda t: kinds.is_string(t) or kinds.is_large_string(t), "text"),
    }
    for role, name in wanted.items():
        if name is None:
            continue
        if name not in schema.names:
            raise SpecError(
                f"{location} has no column {name!r}; it has {', '.join(schema.names)}: say which "
                f"under data.columns.{role}"
            )
        fits, expected = rules[role]
        if not fits(schema.field(name).type):
            raise SpecError(
                f"{location}: column {name!r} is of type {schema.field(name).type}; expected "
                f"{expected} for data.columns.{role}"
            )


def _most(file: Any, name: str, location: str) -> int:
    """Highest label, from statistics of the row groups if they are complete, else by reading."""
    import pyarrow.compute as pc

    index = file.schema_arrow.names.index(name)
    stats = [
        file.metadata.row_group(i).column(index).statistics for i in range(file.num_row_groups)
    ]
    if all(s is not None and s.has_min_max and s.null_count == 0 for s in stats):
        low, high = min(s.min for s in stats), max(s.max for s in stats)
    else:
        column = file.read(columns=[name]).column(name)
        low, high = (None, None) if column.null_count else pc.min_max(column).as_py().values()
    if low is None or low < 0:
        problem = "no label for some images" if low is None else f"the label {low}"
        raise SpecError(f"{location} has {problem}; expected whole numbers from 0")
    return int(high)


def _layout(metadata: Any) -> str:
    """Digest of the offsets and sizes of all columns, which differ if the content differs."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    columns = [group.column(j) for group in groups for j in range(group.num_columns)]
    facts = [[c.path_in_schema, c.file_offset, c.total_compressed_size] for c in columns]
    return digest({"rows": metadata.num_rows, "columns": facts})
