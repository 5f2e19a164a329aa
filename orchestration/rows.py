"""Rows of a latency table, kept as they come: a measurement that is stopped goes on."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.storage import Storage
from nas_core.latency import PartShape, Row, row_from_dict, row_to_dict

FORMAT = "latency-rows/1"


class RowStore:
    """The rows of one table that is being measured."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage, self._place, self._key = storage, f"tables/{key}.rows.json", key
        self._rows: dict[PartShape, Row] = {}
        self._overheads_ms: list[float] = []
        self._read()

    def _read(self) -> None:
        if not self._storage.exists(self._place):
            return
        values = self._storage.read_json(self._place)
        if values.get("format") == FORMAT and values.get("key") == self._key:
            self._rows = {row.part: row for row in map(row_from_dict, values["rows"])}
            self._overheads_ms = list(values["overheads_ms"])

    def get(self, part: PartShape) -> Row | None:
        """The row of a part, if it was measured."""
        return self._rows.get(part)

    def missing(self, parts: Iterable[PartShape]) -> list[PartShape]:
        """Parts that were not measured yet, in their order."""
        return [part for part in parts if part not in self._rows]

    @property
    def overheads_ms(self) -> list[float]:
        """Empty calls that were timed beside them."""
        return self._overheads_ms

    def add(self, rows: Iterable[Row], overhead_ms: float) -> None:
        """Keep rows, in place of those of the same parts."""
        self._rows |= {row.part: row for row in rows}
        self._overheads_ms.append(overhead_ms)
        self._write()

    def drop(self, rows: Iterable[Row]) -> None:
        """Forget rows, so that they are measured again."""
        for row in rows:
            self._rows.pop(row.part, None)
        self._write()

    def _write(self) -> None:
        rows = [row_to_dict(row) for row in self._rows.values()]
        values = {"format": FORMAT, "key": self._key, "rows": rows}
        self._storage.write_json(self._place, {**values, "overheads_ms": self._overheads_ms})

    def clear(self) -> None:
        """The table holds them now."""
        if self._storage.exists(self._place):
            self._storage.delete(self._place)
