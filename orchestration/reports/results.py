"""What can be told from a `result.json`: its latency, its seed, which results belong together.

Results of one network under several seeds are its repeats; they have a mean and a spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

Result = dict[str, Any]
"""The content of a `result.json`."""


def latency_ms(result: Result) -> float:
    """As measured; by the table on a target that is not measured."""
    measured = result["measured_ms"]
    return float(result["table_ms"] if measured is None else measured)


def has_latency(result: Result) -> bool:
    """Whether the network was measured or is covered by the table."""
    return result["measured_ms"] is not None or result["table_ms"] is not None


def seed_of(result: Result) -> int:
    """The seed that a network was searched and trained with; 0 where an older file has none."""
    return int(result.get("seed") or 0)


def name_without_seed(result: Result) -> str:
    """The name that all repeats of a case have in common."""
    return str(result["case"]).removesuffix(f"-seed{seed_of(result)}")


def model_name(result: Result) -> str:
    """What a baseline or a given network is called: its case without target and seed."""
    return name_without_seed(result).removeprefix(f"{result['target']}-")


def repeats(results: Iterable[Result]) -> list[list[Result]]:
    """Results that differ in nothing but their seed, together, in the order of their first."""
    found: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        key = (result["job"], result["target"], result["kind"], name_without_seed(result))
        found.setdefault(key, []).append(result)
    return list(found.values())


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def spread(values: Sequence[float | None]) -> float | None:
    """Sample standard deviation of those that are known; None where they are fewer than two."""
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None
