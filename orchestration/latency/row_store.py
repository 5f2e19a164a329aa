"""Rows of a latency table, kept as they come: a measurement that is stopped goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.runtimes.base import MeasurementError
from cluster.storage import Storage
from nas_core.latency import LatencyEntry, LatencyTable, OpSignature, entry_from_dict, entry_to_dict
from orchestration.config.storage_layout import EARLIER_ROWS_FORMATS, ROWS_FORMAT, table_rows_file


class RowStore:
    """The rows of one table that is being measured."""

    def __init__(self, storage: Storage, key: str, device: Mapping[str, Any]) -> None:
        """Reads what a measurement on the same device has left.

        Args:
            storage: where the rows are.
            key: of the table.
            device: what tells the device from another: rows of another are not taken.

        Raises:
            MeasurementError: a later version of this project has left rows there.
        """
        self._storage, self._place, self._key = storage, table_rows_file(key), key
        self._device = dict(device)
        self._rows: dict[OpSignature, LatencyEntry] = {}
        self._overheads_ms: list[float] = []
        self._anchor_ms = 0.0
        self._now_ms = 0.0
        self._read()

    def _read(self) -> None:
        values = self._storage.find_json(self._place)
        if values is None:
            return
        if values.get("format") not in (ROWS_FORMAT, *EARLIER_ROWS_FORMATS):
            raise MeasurementError(
                f"{self._storage.where(self._place)} is {values.get('format')!r}, and this version "
                f"reads {ROWS_FORMAT!r}; update this project, or remove the file to measure again"
            )
        if values["format"] == ROWS_FORMAT and values["device"] == self._device:
            self._rows = {row.part: row for row in map(entry_from_dict, values["rows"])}
            self._overheads_ms = list(values["overheads_ms"])
            self._anchor_ms = values["anchor_ms"]

    def take_over(self, table: LatencyTable) -> None:
        """Rows of a table that is measured already, in place of nothing."""
        self._rows = {row.part: row for row in table.rows} | self._rows
        self._overheads_ms = self._overheads_ms or [table.overhead_ms]
        self._anchor_ms = self._anchor_ms or table.reference_ms or 0.0

    def anchor(self, anchor_ms: float) -> None:
        """What a network takes now, that is timed with all rows."""
        self._anchor_ms = self._anchor_ms or anchor_ms
        self._now_ms = anchor_ms

    @property
    def drift(self) -> float:
        """How much longer it takes now than with the first rows, as a factor."""
        return self._now_ms / self._anchor_ms if self._now_ms and self._anchor_ms else 1.0

    @property
    def rows(self) -> list[LatencyEntry]:
        """Those that were measured."""
        return list(self._rows.values())

    def get(self, part: OpSignature) -> LatencyEntry | None:
        """The row of a part, if it was measured."""
        return self._rows.get(part)

    def missing(self, parts: Iterable[OpSignature]) -> list[OpSignature]:
        """Parts that were not measured yet, in their order."""
        return [part for part in parts if part not in self._rows]

    @property
    def overheads_ms(self) -> list[float]:
        """Empty calls that were timed beside them."""
        return self._overheads_ms

    def add(self, rows: Iterable[LatencyEntry], overhead_ms: float) -> None:
        """Keep rows, in place of those of the same parts."""
        self._rows |= {row.part: row for row in rows}
        self._overheads_ms.append(overhead_ms)
        self._write()

    def drop(self, rows: Iterable[LatencyEntry]) -> None:
        """Forget rows, so that they are measured again."""
        for row in rows:
            self._rows.pop(row.part, None)
        self._write()

    def _write(self) -> None:
        rows = [entry_to_dict(row) for row in self._rows.values()]
        facts = {"key": self._key, "device": self._device, "anchor_ms": self._anchor_ms}
        values = {"format": ROWS_FORMAT, **facts, "overheads_ms": self._overheads_ms}
        self._storage.write_json(self._place, {**values, "rows": rows})

    def clear(self) -> None:
        """The table holds them now."""
        self._storage.delete(self._place)
