"""Findings of a job as sentences: searched networks against the reference and their baselines.

Repeats of a case are compared seed by seed with those of the other network. A sentence gives the
mean of the differences and their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log
from statistics import fmean

from orchestration.reports.results import (
    has_latency,
    latency_ms,
    mean,
    model_name,
    name_without_seed,
    repeats,
    seed_of,
)
from orchestration.state.result import Result

Pair = tuple[Result, Result]
"""A network and the network it is compared with, both of the same seed."""

WIDTHS = "mobilenet_v2"
"""Prefix of baselines of several widths; the one of the nearest latency is a control."""


def findings(results: Sequence[Result]) -> list[str]:
    """Compare each network with the reference of its target, then each search with its controls."""
    groups = repeats(results)
    references = [group for group in groups if group[0]["kind"] == "reference"]
    others = [group for group in groups if group[0]["kind"] != "reference"]
    compared = [
        _pairs(other, reference)
        for reference in references
        for other in others
        if other[0]["kind"] != "random"  # only compared with its search
    ]
    searches = [group for group in others if group[0]["kind"] == "search"]
    controls = [text for search in searches for text in _on_controls(search, others)]
    return [*(_on_reference(pairs) for pairs in compared if pairs), *controls]


def _pairs(group: Sequence[Result], others: Sequence[Result]) -> list[Pair]:
    """Pairs of equal target and seed."""
    return [
        (result, other)
        for result in group
        for other in others
        if result["target"] == other["target"] and seed_of(result) == seed_of(other)
    ]


def _on_reference(pairs: Sequence[Pair]) -> str:
    """`mobile-0.31ms takes 24 % less time than the reference, top-1 0.4 points lower`."""
    ratio = _time_ratio(pairs)
    compared_to = "of the reference" if ratio >= 2 else "than the reference"
    text = f"{_name(pairs)} takes {_time(ratio)} {compared_to}"
    if pairs[0][0]["measured_ms"] is None:
        text += " by the table"
    points = _points(pairs)
    if points is not None:
        difference = f"{abs(points):.1f} points {'higher' if points >= 0 else 'lower'}"
        text += f", top-1 {difference if abs(points) >= 0.05 else 'the same'}"
    return text + _count(pairs)


def _on_controls(search: Sequence[Result], others: Sequence[Sequence[Result]]) -> Iterator[str]:
    """Compare a searched network with random ones and with the MobileNetV2 of its latency."""
    for group in others:
        is_control = group[0]["kind"] == "random"
        pairs = _pairs(search, group)
        if is_control and pairs and group[0]["budget_ms"] == search[0]["budget_ms"]:
            yield from _sentence(pairs, f"the {random_name(group[0])}")
    pairs = _nearest_width(search, others)
    if pairs:
        its_ms = fmean(latency_ms(baseline) for _, baseline in pairs)
        name = f"{model_name(pairs[0][1])} ({its_ms:.3f} ms)"
        yield from _sentence(pairs, name, f", taking {_time(_time_ratio(pairs))}")


def _sentence(pairs: Sequence[Pair], other: str, suffix: str = "") -> Iterator[str]:
    """`mobile-0.31ms beats the best of 3 random networks by 0.4 points`.

    Yields nothing if an accuracy is missing.
    """
    points = _points(pairs)
    if points is None:
        return
    verdict = f"is {abs(points):.1f} points below {other}"
    if points > 0:
        verdict = f"beats {other} by {points:.1f} points"
    if abs(points) < 0.05:
        verdict = f"is level with {other}"
    yield f"{_name(pairs)} {verdict}{suffix}{_count(pairs)}"


def random_name(control: Result) -> str:
    """Description such as `best of 3 random networks`; without the number if it is unknown."""
    count = random_networks(control)
    return "best random network" if count is None else f"best of {count} random networks"


def random_networks(control: Result) -> int | None:
    """Number of random networks that were compared; None if the result does not say."""
    count = (control.get("random") or {}).get("networks")
    return None if count is None else int(count)


def _nearest_width(search: Sequence[Result], others: Sequence[Sequence[Result]]) -> list[Pair]:
    """Pairs with the MobileNetV2 of the nearest latency; empty if there is none."""
    candidates = [
        pairs
        for group in others
        if group[0]["kind"] == "baseline" and model_name(group[0]).startswith(WIDTHS)
        if (pairs := _pairs(search, [result for result in group if has_latency(result)]))
    ]
    return min(candidates, key=lambda pairs: abs(log(_time_ratio(pairs))), default=[])


def _time_ratio(pairs: Sequence[Pair]) -> float:
    return fmean(latency_ms(result) / latency_ms(other) for result, other in pairs)


def _points(pairs: Sequence[Pair]) -> float | None:
    """Mean difference of top-1, percentage points."""
    known = [(result["top1"], other["top1"]) for result, other in pairs]
    return mean([100 * (a - b) for a, b in known if a is not None and b is not None])


def _name(pairs: Sequence[Pair]) -> str:
    result = pairs[0][0]
    return str(result["case"]) if len(pairs) == 1 else name_without_seed(result)


def _count(pairs: Sequence[Pair]) -> str:
    return f" (mean of {len(pairs)} seeds)" if len(pairs) > 1 else ""


def _time(ratio: float) -> str:
    if ratio >= 2:
        return f"{ratio:.1f} times the time"
    return f"{100 * abs(1 - ratio):.0f} % {'less' if ratio <= 1 else 'more'} time"
