"""Latency tables from files that were measured elsewhere: rows as CSV, YAML or JSON.

    op,in_channels,out_channels,stride,resolution,ms
    stem,1,8,2,32,0.012
    mbconv_k3_e3,8,16,2,16,0.020

A row is a part of the space with its time per batch, in a column `ms`, `us` or `s`. Optional
columns are `site`, if the row holds for one site only, and `p10_ms`, `p90_ms`, `spread` and
`count`. Skips have no rows unless they take time. A JSON file may also hold a whole table.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from cluster.hardware import Target
from nas_core.architecture import Architecture
from nas_core.latency import LatencyEntry, LatencyTable, OpSignature
from nas_core.space import SearchSpace

SHAPE = ("in_channels", "out_channels", "stride", "resolution")
NEEDED = ("op", *SHAPE, "ms")
UNITS = {"ms": 1.0, "us": 1e-3, "s": 1e3}
"""Factor to milliseconds, by name of the time column."""
OPTIONAL = ("site", "p10_ms", "p90_ms", "spread", "count")
READERS = {".csv": "CSV", ".yaml": "YAML", ".yml": "YAML", ".json": "JSON"}


def read_table(path: Path, space: SearchSpace, target: Target) -> LatencyTable:
    """Read the table of a space from a file.

    Raises:
        ValueError: the file cannot be read; a row is wrong; a row that the space needs is missing
            (the message names op and site); or the times cannot be latencies.
    """
    values = _content(path)
    if isinstance(values, Mapping) and "format" in values:
        table = replace(_whole(path, values, space), target=target.name)
    else:
        table = LatencyTable(
            target=target.name,
            hardware=target.hardware(),
            runtime=target.runtime,
            runtime_version="",
            space=space,
            rows=_rows(path, values),
            device={"file": path.name},
        )
    try:
        table.check()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if table.reference_ms is None:
        table = replace(table, reference_ms=table.latency_ms(Architecture.reference(space)))
    return table


def _whole(path: Path, values: Mapping[str, Any], space: SearchSpace) -> LatencyTable:
    try:
        table = LatencyTable.from_dict(dict(values))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if table.space.sites != space.sites:
        raise ValueError(
            f"{path} is the table of '{table.space.name}' at {table.space.resolution} pixels, but "
            f"the job has '{space.name}' at {space.resolution}; measure that space, or change space"
        )
    return replace(table, space=space)


def _content(path: Path) -> Any:
    kind = READERS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path} ends in {path.suffix!r}; expected one of {', '.join(READERS)}")
    try:
        text = path.read_text(encoding="utf-8")
        if kind == "CSV":
            return list(csv.DictReader(io.StringIO(text)))
        return json.loads(text) if kind == "JSON" else yaml.safe_load(text)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not {kind}: {reason}") from None


def _rows(path: Path, values: Any) -> tuple[LatencyEntry, ...]:
    rows = values.get("rows") if isinstance(values, Mapping) else values
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise ValueError(f"{path} has no rows; expected a list of {{{', '.join(NEEDED)}}}")
    entries = tuple(_row(f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))
    numbers: dict[tuple[str, OpSignature], int] = {}
    for number, row in enumerate(entries, start=1):
        first = numbers.setdefault((row.site, row.part), number)
        if first != number:
            raise ValueError(f"{path}: row {number} is of the same part as row {first}; keep one")
    return entries


def _row(location: str, values: Any) -> LatencyEntry:
    if not isinstance(values, Mapping):
        raise ValueError(f"{location} is {values!r}; expected {', '.join(NEEDED)}")
    unit = next((name for name in UNITS if name in values), "ms")
    needed = (*NEEDED[:-1], unit)
    unknown = [str(name) for name in values if name not in (*needed, *OPTIONAL)]
    missing = [name for name in needed if values.get(name) in (None, "")]
    if unknown or missing:
        problem = f"has no {missing[0]}" if missing else f"has {unknown[0]!r}"
        raise ValueError(
            f"{location} {problem}; expected {', '.join(NEEDED)} and perhaps {', '.join(OPTIONAL)}"
        )
    ms = _number(location, unit, values[unit]) * UNITS[unit]
    shape = [_whole_number(location, name, values[name]) for name in SHAPE]
    return LatencyEntry(
        part=OpSignature(str(values["op"]), *shape),
        median_ms=ms,
        p10_ms=_number(location, "p10_ms", values.get("p10_ms") or ms),
        p90_ms=_number(location, "p90_ms", values.get("p90_ms") or ms),
        spread=_number(location, "spread", values.get("spread") or 0.0),
        count=_whole_number(location, "count", values.get("count") or 0),
        site=str(values.get("site") or ""),
    )


def _number(location: str, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not isfinite(number):
        raise ValueError(
            f"{location}: {name} is {value!r}; expected a number, milliseconds per batch"
        )
    return number


def _whole_number(location: str, name: str, value: Any) -> int:
    number = _number(location, name, value)
    if number != int(number) or number < 0:
        raise ValueError(f"{location}: {name} is {value!r}; expected a whole number")
    return int(number)
