"""Storage of the rows of a latency table during its measurement, so that it can be resumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.runtimes.base import MeasurementError
from cluster.storage import Storage
from nas_core.latency import LatencyEntry, LatencyTable, OpSignature, entry_from_dict, entry_to_dict
from orchestration.config.storage_layout import EARLIER_ROWS_FORMATS, ROWS_FORMAT, table_rows_file


class RowStore:
    """Rows of a table that is being measured."""

    def __init__(self, storage: Storage, key: str, device: Mapping[str, Any]) -> None:
        """Read the rows that an earlier measurement on the same device left.

        Args:
            storage: storage that holds the rows.
            key: key of the table.
            device: identity of the device. Rows of other devices are ignored.

        Raises:
            MeasurementError: the rows were written by a later version of this project.
        """
        self._storage, self._path, self._key = storage, table_rows_file(key), key
        self._device = dict(device)
        self._rows: dict[OpSignature, LatencyEntry] = {}
        self._overheads_ms: list[float] = []
        self._anchor_ms = 0.0
        self._now_ms = 0.0
        self._read()

    def _read(self) -> None:
        values = self._storage.find_json(self._path)
        if values is None:
            return
        if values.get("format") not in (ROWS_FORMAT, *EARLIER_ROWS_FORMATS):
            raise MeasurementError(
                f"{self._storage.where(self._path)} is {values.get('format')!r}, and this version "
                f"reads {ROWS_FORMAT!r}; update this project, or remove the file to measure again"
            )
        if values["format"] == ROWS_FORMAT and values["device"] == self._device:
            self._rows = {row.part: row for row in map(entry_from_dict, values["rows"])}
            self._overheads_ms = list(values["overheads_ms"])
            self._anchor_ms = values["anchor_ms"]

    def take_over(self, table: LatencyTable) -> None:
        """Add the rows of a finished table for parts that have no row yet."""
        self._rows = {row.part: row for row in table.rows} | self._rows
        self._overheads_ms = self._overheads_ms or [table.overhead_ms]
        self._anchor_ms = self._anchor_ms or table.reference_ms or 0.0

    def anchor(self, anchor_ms: float) -> None:
        """Record the latency of the reference network, which is timed with every group of rows."""
        self._anchor_ms = self._anchor_ms or anchor_ms
        self._now_ms = anchor_ms

    @property
    def drift(self) -> float:
        """Latency of the reference network now, relative to that with the first rows."""
        return self._now_ms / self._anchor_ms if self._now_ms and self._anchor_ms else 1.0

    @property
    def rows(self) -> list[LatencyEntry]:
        """Rows measured so far."""
        return list(self._rows.values())

    def get(self, part: OpSignature) -> LatencyEntry | None:
        """Row of a part; None if it is not measured yet."""
        return self._rows.get(part)

    def missing(self, parts: Iterable[OpSignature]) -> list[OpSignature]:
        """Parts that are not measured yet, in the given order."""
        return [part for part in parts if part not in self._rows]

    @property
    def overheads_ms(self) -> list[float]:
        """Latencies of the empty calls that were timed with the rows."""
        return self._overheads_ms

    def add(self, rows: Iterable[LatencyEntry], overhead_ms: float) -> None:
        """Store rows, replacing those of the same parts."""
        self._rows |= {row.part: row for row in rows}
        self._overheads_ms.append(overhead_ms)
        self._write()

    def drop(self, rows: Iterable[LatencyEntry]) -> None:
        """Delete rows, so that they are measured again."""
        for row in rows:
            self._rows.pop(row.part, None)
        self._write()

    def _write(self) -> None:
        rows = [entry_to_dict(row) for row in self._rows.values()]
        facts = {"key": self._key, "device": self._device, "anchor_ms": self._anchor_ms}
        values = {"format": ROWS_FORMAT, **facts, "overheads_ms": self._overheads_ms}
        self._storage.write_json(self._path, {**values, "rows": rows})

    def clear(self) -> None:
        """Delete all rows from storage: the table holds them now."""
        self._storage.delete(self._path)
