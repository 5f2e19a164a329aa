"""Row index of a set of Parquet files: hash and label of each row, by row group.

The driver builds it once, while planning, and stores it. Workers derive from it, without any
communication, which rows belong to which part, epoch, worker and batch.
Shapes: N rows, G row groups.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cluster.storage import Storage
from orchestration.config.data import ColumnSettings, DataSettings
from orchestration.config.storage_layout import INDEX_FILE, INDEX_FORMAT, data_folder
from orchestration.data.info import DataFacts
from orchestration.data.parquet.files import (
    READERS,
    ImageFiles,
    keys_of,
    unchanged_files,
    whole_parquet,
)
from orchestration.data.split import Hashes, Numbers, hashes_of


@dataclass(frozen=True)
class RowIndex:
    """Rows of a set, in the order of its files."""

    paths: tuple[str, ...]
    """Paths or s3:// addresses of the files."""
    files: Numbers
    """(G,): index in `paths` of each row group's file."""
    numbers: Numbers
    """(G,): number of each row group within its file, from 0."""
    starts: Numbers
    """(G + 1,): first row of each row group, and N."""
    hashes: Hashes
    """(N,): hashes of the keys."""
    labels: Numbers
    """(N,)."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def is_ordered(self) -> bool:
        """Whether rows are sorted by hash, as in sets that this project converted."""
        return bool((self.hashes[1:] >= self.hashes[:-1]).all())

    def groups_of(self, rows: Numbers) -> Numbers:
        """Row group of each of `rows`, same shape."""
        groups: Numbers = np.searchsorted(self.starts, rows, side="right") - 1
        return groups

    def to_bytes(self) -> bytes:
        """Content of a Parquet file with one row per image; row groups are in its metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        head = {
            "format": INDEX_FORMAT,
            "places": list(self.paths),
            "files": self.files.tolist(),
            "numbers": self.numbers.tolist(),
            "starts": self.starts.tolist(),
        }
        table = pa.table({"hash": self.hashes, "label": self.labels.astype(np.int32)})
        file = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"index": json.dumps(head)}), file)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> RowIndex | None:
        """The inverse of `to_bytes`; None if another version wrote the file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(pa.BufferReader(data))
        head = json.loads((table.schema.metadata or {}).get(b"index", b"{}"))
        if head.get("format") != INDEX_FORMAT:
            return None
        return cls(
            paths=tuple(head["places"]),
            **{name: _whole(head[name]) for name in ("files", "numbers", "starts")},
            hashes=table.column("hash").to_numpy(),
            labels=_whole(table.column("label").to_numpy()),
        )


def _whole(values: Any) -> Numbers:
    return np.asarray(values, dtype=np.int64)


def row_index(settings: DataSettings, facts: DataFacts, storage: Storage | None) -> RowIndex:
    """Index of the files that the settings name.

    Args:
        settings: the `data:` section of the job.
        facts: facts about the files.
        storage: cache of the index; None: not cached.

    Raises:
        SpecError: a file cannot be read, or a row has no key.
    """
    path = f"{data_folder(facts.fingerprint)}/{INDEX_FILE}"
    data = None if storage is None else storage.find_bytes(path)
    if data is not None and (stored := RowIndex.from_bytes(data)) is not None:
        return stored
    index = index_of(unchanged_files(settings, facts), settings.columns)
    if storage is not None:
        storage.write_bytes(path, index.to_bytes())
    return index


def index_of(files: ImageFiles, columns: ColumnSettings) -> RowIndex:
    """Read keys and labels of all files."""
    paths = tuple(files.folder.where(file.name) for file in files.files)
    with ThreadPoolExecutor(READERS) as pool:
        contents = list(pool.map(_read, paths, [columns] * len(paths)))
    sizes = [size for _, _, each in contents for size in each]
    return RowIndex(
        paths=paths,
        files=_whole([i for i, (_, _, each) in enumerate(contents) for _ in each]),
        numbers=_whole([number for _, _, each in contents for number in range(len(each))]),
        starts=_whole(np.cumsum([0, *sizes])),
        hashes=np.concatenate([hashes for hashes, _, _ in contents]),
        labels=np.concatenate([labels for _, labels, _ in contents]),
    )


def _read(path: str, columns: ColumnSettings) -> tuple[Hashes, Numbers, Sequence[int]]:
    """Hashes and labels of the rows of a file, and the number of rows of each row group."""
    import pyarrow.parquet as pq

    from cluster.files import open_file

    wanted = [columns.label] if columns.key is None else [columns.label, columns.key]
    with whole_parquet(path), open_file(path) as source:
        file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True)
        table = file.read(columns=wanted)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    hashes = hashes_of(keys_of(table, columns.key, path))
    return hashes, _whole(table.column(columns.label).to_numpy()), sizes
