"""Lines of the evidence in `results/`, and how their figures are written in Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
AHEAD = "points that the found ones are ahead"
"""Of random networks: what such a row says of those that were found."""
FOLDER = Path(__file__).resolve().parents[1] / "results"


def newest(part: str) -> Path | None:
    """The last file of a part; names end in the day."""
    files = sorted(
        FOLDER.glob(f"evidence_{part}__*.json"), key=lambda file: (file.stem[-10:], file.name)
    )
    return files[-1] if files else None


def rows_of(part: str) -> list[Row]:
    """Its lines, each with where it stands; none where it was not made."""
    file = newest(part)
    if file is None:
        return []
    lines = enumerate(file.read_text().splitlines(), start=1)
    return [{**json.loads(text), "at": f"results/{file.name}#L{n}"} for n, text in lines]


def linked(row: Row, text: str | None = None) -> str:
    """What a row is, linked to its line."""
    return f"[{text or row['what']}]({row['at']})"


def as_table(head: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(_cell, one)) + " |" for one in lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def interval(values: Sequence[float] | None) -> str:
    """A mean with its interval; of one seed there is none."""
    if values is None:
        return ""
    if len(values) < 3:
        return ", ".join(f"{one:g}" for one in values)
    return f"{values[0]:g} ({values[1]:g} to {values[2]:g})"


def accuracy(row: Row) -> str:
    """Mean and standard deviation, percent."""
    deviation = row.get("deviation")
    return f"{row['top1']:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else "")
