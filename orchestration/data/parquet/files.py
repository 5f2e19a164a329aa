"""Data source `parquet`: what its files hold. No torch in here.

The driver reads the ends of the files, where their columns, rows and the range of labels stand.
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
"""Ends of files that are read at a time."""


@dataclass(frozen=True)
class File:
    """A Parquet file, as its end tells."""

    name: str
    rows: int
    most: int
    """The highest label."""
    content: str
    """Of its layout; equal files have equal ones."""


@dataclass(frozen=True)
class ImageFiles:
    """A set of Parquet files."""

    folder: Storage
    manifest: Manifest | None
    """If it was converted by this project."""
    files: tuple[File, ...]
    classes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Images."""
        return sum(file.rows for file in self.files)

    @property
    def fingerprint(self) -> str:
        """Equal for equal content; of files without a manifest, for equal layout and sizes."""
        if self.manifest is not None:
            return self.manifest.fingerprint
        return digest({"files": [[file.name, file.content] for file in self.files]})


def describe_parquet(settings: DataSettings) -> DataFacts:
    """Look at the files without reading their images.

    Raises:
        SpecError: they cannot serve as training data; names the file.
    """
    found = image_files(settings)
    channels = settings.channels or 3
    return DataFacts(
        classes=found.classes,
        channels=channels,
        resolution=settings.resolution,
        count=found.count,
        test_count=round(settings.test_share * found.count),
        fingerprint=_fingerprint(found, settings),
    )


def _fingerprint(files: ImageFiles, settings: DataSettings) -> str:
    columns = digest({"key": settings.columns.key, "classes": list(files.classes)})
    return f"parquet/{files.fingerprint}-{columns[:8]}"


def unchanged_files(settings: DataSettings, facts: DataFacts) -> ImageFiles:
    """The files of a set that was described before.

    Raises:
        SpecError: one cannot serve, or they are others by now.
    """
    files = image_files(settings)
    facts.check_unchanged(_fingerprint(files, settings))
    return files


def image_files(settings: DataSettings) -> ImageFiles:
    """The files of a set, each looked at.

    Raises:
        SpecError: there are none, or one cannot serve.
    """
    try:
        folder = Storage(str(settings.path))
        manifest = find_manifest(folder)
        names = _names(folder, manifest)
        sizes = {} if manifest is None else {one.name: one.bytes for one in manifest.shards}
        with ThreadPoolExecutor(READERS) as pool:
            look = [pool.submit(_look, folder, name, settings, sizes.get(name)) for name in names]
            files = tuple(one.result() for one in look)
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
    """What the end of a file tells."""
    import pyarrow.parquet as pq

    from cluster.files import open_file

    place = f"data.path: {folder.where(name)}"
    if size is not None and folder.size_bytes(name) != size:
        raise SpecError(
            f"{place} has {folder.size_bytes(name)} bytes, and the manifest says {size}; convert "
            "the images again"
        )
    with whole_parquet(folder.where(name)), open_file(folder.where(name)) as source:
        file = pq.ParquetFile(source)
        _check_columns(file.schema_arrow, settings, place)
        if file.metadata.num_rows == 0:
            raise SpecError(f"{place} has no rows; remove it")
        most = _most(file, settings.columns.label, place)
        return File(name, file.metadata.num_rows, most, _layout(file.metadata))


@contextmanager
def whole_parquet(place: str) -> Iterator[None]:
    """Name a file that is read inside the block and is cut off, damaged or gone."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(
            f"data.path: {place} is no whole Parquet file ({reason}); replace it"
        ) from None


def keys_of(table: Any, column: str | None, place: str) -> list[str]:
    """Keys of the rows of a file: a column of it, else its name and their numbers.

    Raises:
        SpecError: a row has none.
    """
    if column is None:
        name = place.rpartition("/")[2]
        return [f"{name}:{row}" for row in range(table.num_rows)]
    keys: list[str | None] = table.column(column).to_pylist()
    if None in keys:
        raise SpecError(f"data.path: {place} has no key in row {keys.index(None)}; give it one")
    return [str(key) for key in keys]


def _check_columns(schema: Any, settings: DataSettings, place: str) -> None:
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
                f"{place} has no column {name!r}; it has {', '.join(schema.names)}: say which "
                f"under data.columns.{role}"
            )
        fits, expected = rules[role]
        if not fits(schema.field(name).type):
            raise SpecError(
                f"{place}: column {name!r} is of type {schema.field(name).type}; expected "
                f"{expected} for data.columns.{role}"
            )


def _most(file: Any, name: str, place: str) -> int:
    """The highest label, from what the end says of each row group, else by reading them."""
    import pyarrow.compute as pc

    index = file.schema_arrow.names.index(name)
    found = [
        file.metadata.row_group(i).column(index).statistics for i in range(file.num_row_groups)
    ]
    if all(one is not None and one.has_min_max and one.null_count == 0 for one in found):
        low, high = min(one.min for one in found), max(one.max for one in found)
    else:
        column = file.read(columns=[name]).column(name)
        low, high = (None, None) if column.null_count else pc.min_max(column).as_py().values()
    if low is None or low < 0:
        said = "no label for some images" if low is None else f"the label {low}"
        raise SpecError(f"{place} has {said}; expected whole numbers from 0")
    return int(high)


def _layout(metadata: Any) -> str:
    """Digest of where everything lies in a file: another content hardly has the same."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    columns = [group.column(j) for group in groups for j in range(group.num_columns)]
    facts = [[c.path_in_schema, c.file_offset, c.total_compressed_size] for c in columns]
    return digest({"rows": metadata.num_rows, "columns": facts})
