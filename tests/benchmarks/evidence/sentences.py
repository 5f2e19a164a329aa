"""Sentences that summarize the evidence, for the README's first screen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tests.benchmarks.evidence.markdown import AHEAD, Row, interval, linked, rows_of


def preferences() -> list[Row]:
    """Rows that compare the networks of one target with those of another."""
    return [row for row in rows_of("networks") if " / searched for" in row["what"]]


def preferred() -> str:
    """Sentence that says in how many pairs a target's own networks are faster."""
    rows = preferences()
    own = [row for row in rows if _lowest(row) > 1]
    slower = [row["what"].partition(":")[2].strip() for row in rows if _highest(row) < 1]
    open_ = [row for row in rows if _lowest(row) <= 1 <= _highest(row)]
    said = [
        f"In {len(own)} of {len(rows)} pairs the networks that were searched for a target are "
        "faster on it than those of another target, at equal accuracy, with a 95 % interval above 1"
    ]
    if open_:
        ahead = sum(row["times"][0] > 1 for row in open_)
        said.append(
            f"in {len(open_)} they cannot be told apart (the mean is above 1 in {ahead} of them)"
        )
    if slower:
        said.append(f"in {len(slower)} they are slower ({'; '.join(slower)})")
    seeds = max((row["n"] for row in rows), default=0)
    return "; ".join(said) + f". Means of {seeds} seeds.\n"


def _lowest(row: Row) -> float:
    """Lower end of the interval of a ratio; 0 for one seed, which has no interval."""
    return float(row["times"][1]) if len(row["times"]) == 3 else 0.0


def _highest(row: Row) -> float:
    """Upper end of the interval of a ratio; infinity for one seed, which has no interval."""
    return float(row["times"][2]) if len(row["times"]) == 3 else math.inf


def claim() -> str:
    """Sentence at the top of the README."""
    rows = rows_of("networks")
    speeds = [row for row in rows if f"MobileNetV2 {BELOW}" in row["what"]]
    again = [row for row in rows if "the reference at the highest accuracy" in row["what"]]
    seeds, device = (speeds[0]["n"], speeds[0]["device"]) if speeds else (0, "")
    return (
        f"**At an accuracy that both reach, MobileNetV2 takes {_on_targets(speeds)} of networks "
        f"that it finds.** The network of their own space with one op everywhere, at its accuracy, "
        f"takes {_on_targets(again)}.\n(Rendered characters, six epochs of training each"
        f"{_after_longer()}; MobileNetV2 one point below the highest accuracy of both; geometric "
        f"mean and 95 % interval over {seeds} seeds of search and training; latencies from one run "
        f"on {device}, which stands in for the phone of `mobile` too.)\n"
    )


BELOW = "one point below the highest accuracy of both"


def _after_longer() -> str:
    """Addition to the claim about longer training, if that was measured."""
    rows = [row for row in rows_of("longer") if f"MobileNetV2 {BELOW}" in row["what"]]
    return "".join(
        f" (after 24, on `cpu` and from one seed, it takes {linked(row, interval(row['times']))} "
        "times the time)"
        for row in rows
    )


def _on_targets(rows: Sequence[Row]) -> str:
    """Speed-ups on each target, joined by "and"."""
    return " and ".join(
        f"{linked(row, interval(row['times']))} times the time on `{row['what'].partition(':')[0]}`"
        for row in rows
    )


def longer() -> str:
    """Sentence on what remains of the speed-up after a longer training."""
    rows = [row for row in rows_of("longer") if "than MobileNetV2" in row["what"]]
    at, below = (f"{linked(row, interval(row['times']))} (at {row['top1']:g} %)" for row in rows)
    return (
        f"After a training four times as long (24 epochs, one seed, widths 0.35 to 1.4) "
        f"MobileNetV2 takes on `cpu`, at the highest accuracy of both and a point below, {at} and "
        f"{below} times the time.\n"
    )


def beyond_chance() -> str:
    """Sentence on the lead of searched networks over random ones of the same latency."""
    rows = rows_of("random")
    by_target: dict[str, dict[str, str]] = {}
    for row in rows:
        target, _, budget = row["what"].partition(":")[0].partition(", budget ")
        by_target.setdefault(target, {})[budget] = linked(row, interval(row[AHEAD]))
    texts = [
        f"on `{target}` by {_listed(points.values())} points within {_listed(points)}"
        for target, points in by_target.items()
    ]
    seeds, networks = (rows[0]["seeds"], rows[0]["n"]) if rows else (0, 0)
    return (
        "Found networks are ahead of random ones of their space, which take 95 to 100 % of their "
        "latency and are trained alike, "
        f"{', '.join(texts)} of the reference's latency ({networks} random networks each, in "
        f"{seeds} seeds): where the interval holds 0, a search is not shown to be worth anything.\n"
    )


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
