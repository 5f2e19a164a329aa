"""Rows of a comparison as files: JSON, CSV and Parquet, all with the same columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cluster.storage import Storage
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import COMPARISON_FORMAT

Kind = Literal["text", "yes or no", "whole", "number"]
Row = Mapping[str, Any]

KINDS: dict[str, Kind] = {
    **dict.fromkeys(("job", "case", "kind", "target", "hardware"), "text"),
    "stand_in": "yes or no",
    **dict.fromkeys(("budget", "strategy", "objective", "space", "architecture_hash"), "text"),
    "seed": "whole",
    **dict.fromkeys(("budget_ms", "table_ms", "measured_ms", "top1", "top5"), "number"),
    **dict.fromkeys(("params", "macs", "total_stride"), "whole"),
    **dict.fromkeys(("search_s", "measured_spread", "expected_ms", "warmup_s"), "number"),
    **dict.fromkeys(("retrain_s", "search_gpu_hours", "retrain_gpu_hours"), "number"),
}
"""Columns in order, with their types. Latencies are milliseconds, accuracies fractions."""

SUFFIXES = (".csv", ".parquet", ".json")


def check_path(path: Path) -> None:
    """Check that rows can be written to a path, before anything is written.

    Raises:
        SpecError: the suffix is unknown, or the path is a folder.
    """
    if path.suffix not in SUFFIXES:
        raise SpecError(f"--out is {path}; expected a file that ends in .csv, .parquet or .json")
    if path.is_dir():
        raise SpecError(f"--out is {path}, which is a folder; expected a file, e.g. all.csv")


def write_rows(folder: Storage, stem: str, rows: Sequence[Row], suffix: str) -> None:
    """Write rows atomically to `stem` plus `suffix`."""
    contents = {".csv": csv_bytes, ".parquet": parquet_bytes, ".json": json_bytes}
    folder.write_bytes(f"{stem}{suffix}", contents[suffix](rows))


def json_bytes(rows: Sequence[Row]) -> bytes:
    """Encode rows as JSON with a format field."""
    values = {"format": COMPARISON_FORMAT, "rows": list(rows)}
    return (json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def csv_bytes(rows: Sequence[Row]) -> bytes:
    """Encode rows as CSV; unknown values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    """Encode rows as Parquet. Types do not depend on values, so files of jobs can be combined."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "text": pa.string(),
        "yes or no": pa.bool_(),
        "whole": pa.int64(),
        "number": pa.float64(),
    }
    columns = {name: KINDS.get(name, "text") for name in _columns(rows)}
    arrays = [
        pa.array([_typed(row.get(name), kind) for row in rows], types[kind])
        for name, kind in columns.items()
    ]
    file = io.BytesIO()
    pq.write_table(pa.table(arrays, names=list(columns)), file)
    return file.getvalue()


def _columns(rows: Sequence[Row]) -> list[str]:
    """Additional columns of these rows, then the columns of every comparison."""
    more = dict.fromkeys(name for row in rows for name in row if name not in KINDS)
    return [*more, *KINDS]


def _typed(value: Any, kind: Kind) -> Any:
    """Convert a value to the type of its column; a budget, percentage or milliseconds, is text."""
    if value is None or kind == "yes or no":
        return value
    return {"text": str, "whole": int, "number": float}[kind](value)
