"""Where every image of a set of Parquet files lies: hash and label of each row, by row group.

It is read once, at the plan, and kept in the storage: with it every worker knows, without asking
anybody, which rows belong to which part, epoch, worker and batch. Shapes: N rows, G row groups.
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
    """All rows of a set, in the order of its files."""

    places: tuple[str, ...]
    """Of its files: paths, or s3:// addresses."""
    files: Numbers
    """(G,): in which of them a row group is."""
    numbers: Numbers
    """(G,): the how manieth of its file it is, from 0."""
    starts: Numbers
    """(G + 1,): its first row, and the number of all rows."""
    hashes: Hashes
    """(N,): of the keys."""
    labels: Numbers
    """(N,)."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def is_ordered(self) -> bool:
        """Whether rows stand in the order of their hashes, as in sets that were converted here."""
        return bool((self.hashes[1:] >= self.hashes[:-1]).all())

    def groups_of(self, rows: Numbers) -> Numbers:
        """(n,): row groups of rows."""
        found: Numbers = np.searchsorted(self.starts, rows, side="right") - 1
        return found

    def to_bytes(self) -> bytes:
        """For a file: Parquet, a line for each row; what is known of groups is in its head."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        head = {
            "format": INDEX_FORMAT,
            "places": list(self.places),
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
        """The inverse; None for what another version has written."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(pa.BufferReader(data))
        head = json.loads((table.schema.metadata or {}).get(b"index", b"{}"))
        if head.get("format") != INDEX_FORMAT:
            return None
        return cls(
            places=tuple(head["places"]),
            **{name: _whole(head[name]) for name in ("files", "numbers", "starts")},
            hashes=table.column("hash").to_numpy(),
            labels=_whole(table.column("label").to_numpy()),
        )


def _whole(values: Any) -> Numbers:
    return np.asarray(values, dtype=np.int64)


def row_index(settings: DataSettings, facts: DataFacts, storage: Storage | None) -> RowIndex:
    """The index of the files that the settings name.

    Args:
        settings: which files.
        facts: of them.
        storage: where it is kept for the next time, if anywhere.

    Raises:
        SpecError: a file cannot be read, or has a label that is none.
    """
    place = f"{data_folder(facts.fingerprint)}/{INDEX_FILE}"
    data = None if storage is None else storage.find_bytes(place)
    if data is not None and (kept := RowIndex.from_bytes(data)) is not None:
        return kept
    found = index_of(unchanged_files(settings, facts), settings.columns)
    if storage is not None:
        storage.write_bytes(place, found.to_bytes())
    return found


def index_of(files: ImageFiles, columns: ColumnSettings) -> RowIndex:
    """Read keys and labels of all files."""
    places = tuple(files.folder.where(file.name) for file in files.files)
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(_read, places, [columns] * len(places)))
    sizes = [size for _, _, each in found for size in each]
    return RowIndex(
        places=places,
        files=_whole([i for i, (_, _, each) in enumerate(found) for _ in each]),
        numbers=_whole([number for _, _, each in found for number in range(len(each))]),
        starts=_whole(np.cumsum([0, *sizes])),
        hashes=np.concatenate([hashes for hashes, _, _ in found]),
        labels=np.concatenate([labels for _, labels, _ in found]),
    )


def _read(place: str, columns: ColumnSettings) -> tuple[Hashes, Numbers, Sequence[int]]:
    """Hashes and labels of a file, and rows of its row groups."""
    import pyarrow.parquet as pq

    from cluster.files import open_file

    wanted = [columns.label] if columns.key is None else [columns.label, columns.key]
    with whole_parquet(place), open_file(place) as source:
        file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True)
        table = file.read(columns=wanted)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    hashes = hashes_of(keys_of(table, columns.key, place))
    return hashes, _whole(table.column(columns.label).to_numpy()), sizes
