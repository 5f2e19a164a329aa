"""Lines of the evidence in `results/`, and how their figures are written in Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
AHEAD = "points that the found ones are ahead"
"""Key in rows of random networks: the lead of the searched networks, in points."""
FOLDER = Path(__file__).resolve().parents[1] / "results"


def newest(part: str) -> Path | None:
    """Newest result file of a part, by the date at the end of its name."""
    files = sorted(
        FOLDER.glob(f"evidence_{part}__*.json"), key=lambda file: (file.stem[-10:], file.name)
    )
    return files[-1] if files else None


def rows_of(part: str) -> list[Row]:
    """Rows of the newest result file of a part, each with its place in `at`; empty if none."""
    file = newest(part)
    if file is None:
        return []
    lines = enumerate(file.read_text().splitlines(), start=1)
    return [{**json.loads(text), "at": f"results/{file.name}#L{n}"} for n, text in lines]


def linked(row: Row, text: str | None = None) -> str:
    """Markdown link to the line of a row; the text is its `what` by default."""
    return f"[{text or row['what']}]({row['at']})"


def as_table(head: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    """Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def interval(values: Sequence[float] | None) -> str:
    """A mean with its interval, if there is one (not from a single seed)."""
    if values is None:
        return ""
    if len(values) < 3:
        return ", ".join(f"{value:g}" for value in values)
    return f"{values[0]:g} ({values[1]:g} to {values[2]:g})"


def accuracy(row: Row) -> str:
    """Mean and standard deviation, percent."""
    deviation = row.get("deviation")
    return f"{row['top1']:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else "")
