"""Sentences that state what was measured, for RESULTS.md and README.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from tests.benchmarks.evidence.markdown import AHEAD, Row, interval, linked, rows_of


def preferences() -> list[Row]:
    """Lines that compare networks searched for one target with those of another."""
    return [row for row in rows_of("networks") if " / searched for" in row["what"]]


def preferred() -> str:
    """Number of comparisons in which a target's own networks are faster on it."""
    rows = preferences()
    own = [row for row in rows if _lowest(row) > 1]
    slower = [row["what"].partition(":")[2].strip() for row in rows if _highest(row) < 1]
    open_ = [row for row in rows if _lowest(row) <= 1 <= _highest(row)]
    text = [
        "At equal accuracy, networks searched for a target are faster on it than networks searched "
        f"for another target in {len(own)} of {len(rows)} comparisons (95 % interval above 1)"
    ]
    if open_:
        ahead = sum(row["times"][0] > 1 for row in open_)
        text.append(
            f"in {len(open_)} the interval includes 1 (the mean is above 1 in {ahead} of them)"
        )
    if slower:
        text.append(f"in {len(slower)} they are slower ({'; '.join(slower)})")
    seeds = max((row["n"] for row in rows), default=0)
    return "; ".join(text) + f". Means of {seeds} seeds.\n"


def _lowest(row: Row) -> float:
    """Lower end of an interval; 0 for one seed, which has none."""
    return float(row["times"][1]) if len(row["times"]) == 3 else 0.0


def _highest(row: Row) -> float:
    """Upper end of an interval; infinity for one seed, which has none."""
    return float(row["times"][2]) if len(row["times"]) == 3 else math.inf


def headline() -> str:
    """The first figures of README.md, with the accuracy at which they hold, and their intervals."""
    rows = rows_of("networks")
    mobilenet = _factors(rows, f"MobileNetV2 {BELOW}")
    reference = _factors(rows, "the reference at the highest accuracy of both")
    after_longer = [
        " With four times as many epochs (one seed, `cpu`), the factor over MobileNetV2 is "
        f"{_factor(row)}."
        for row in rows_of("longer")
        if f"MobileNetV2 {BELOW}" in row["what"]
    ]
    return (
        f"In our benchmark its networks are {_on_each(mobilenet)} as fast as MobileNetV2, one "
        "point of top-1 below the highest accuracy that both reach, and "
        f"{_on_each(reference)} as fast as an unsearched network of the same space at its accuracy "
        "(95 % intervals). The benchmark is small: rendered characters, six epochs of training, "
        "five seeds, two CPU "
        f"cores that also stand in for the phone of `mobile`.{''.join(after_longer)}\n"
    )


def _factors(rows: Sequence[Row], name: str) -> dict[str, str]:
    """How many times as fast as another network the searched ones are, by target."""
    return {
        row["what"].partition(":")[0]: _factor(row)
        for row in rows
        if row["what"].endswith(f"faster than {name}")
    }


def _factor(row: Row) -> str:
    mean, *ends = (f"{value:.1f}" for value in row["times"])
    return linked(row, mean) + (f" ({ends[0]} to {ends[1]})" if ends else "")


def _on_each(factors: Mapping[str, str]) -> str:
    return _listed(f"{factor} times (`{target}`)" for target, factor in factors.items())


def claim() -> str:
    """The main result, with intervals and conditions."""
    rows = rows_of("networks")
    speeds = [row for row in rows if f"MobileNetV2 {BELOW}" in row["what"]]
    again = [row for row in rows if "the reference at the highest accuracy" in row["what"]]
    seeds, device = (speeds[0]["n"], speeds[0]["device"]) if speeds else (0, "")
    return (
        f"**At equal accuracy, MobileNetV2 takes {_on_targets(speeds)}, compared with the searched "
        "networks.** The reference network of the same space (one op at every site, no search) "
        f"takes {_on_targets(again)}.\n\nConditions: rendered characters, six epochs of training "
        f"for every network{_after_longer()}. MobileNetV2 is compared one point below the highest "
        "accuracy that both reach, the reference network at its own accuracy. Figures are "
        f"geometric means with 95 % intervals over {seeds} seeds of search and training. Latencies "
        f"are from one run on {device}, which also stands in for the phone of `mobile`.\n"
    )


BELOW = "one point below the highest accuracy of both"


def _after_longer() -> str:
    """The ratio after a longer training, where there is one."""
    rows = [row for row in rows_of("longer") if f"MobileNetV2 {BELOW}" in row["what"]]
    return "".join(
        f" (after 24 epochs, on `cpu` and from one seed, MobileNetV2 takes "
        f"{linked(row, interval(row['times']))} times as long)"
        for row in rows
    )


def _on_targets(rows: Sequence[Row]) -> str:
    """A ratio for each target."""
    return " and ".join(
        f"{linked(row, interval(row['times']))} times as long on `{row['what'].partition(':')[0]}`"
        for row in rows
    )


def longer() -> str:
    """The comparison with MobileNetV2 after a longer training."""
    rows = [row for row in rows_of("longer") if "than MobileNetV2" in row["what"]]
    at, below = (f"{linked(row, interval(row['times']))} times as long" for row in rows)
    at_top1, below_top1 = (f"{row['top1']:g} %" for row in rows)
    return (
        "After four times as many epochs (24, one seed, widths 0.35 to 1.4), MobileNetV2 takes "
        f"{at} on `cpu` at the highest accuracy that both reach ({at_top1}), and {below} one point "
        f"below it ({below_top1}).\n"
    )


def lead_over_random() -> str:
    """Lead of the searched networks in the summary of README.md, with the intervals that decide."""
    rows = [row for row in rows_of("random") if ", budget 50%:" in row["what"]]
    texts = []
    for row in rows:
        mean, low, high = row[AHEAD]
        known = "" if low > 0 else ", which is not distinguishable from no lead"
        target = row["what"].partition(",")[0]
        texts.append(
            f"{linked(row, f'{mean:.1f} points')} on `{target}` "
            f"(95 % interval {low:.1f} to {high:.1f}){known}"
        )
    return f"The lead of the search over random networks of equal latency is {_listed(texts)}.\n"


def beyond_chance() -> str:
    """Lead of the searched networks over random ones of equal latency."""
    rows = rows_of("random")
    by_target: dict[str, dict[str, str]] = {}
    for row in rows:
        target, _, budget = row["what"].partition(":")[0].partition(", budget ")
        by_target.setdefault(target, {})[budget] = linked(row, interval(row[AHEAD]))
    texts = [
        f"by {_listed(points.values())} points on `{target}` within {_listed(points)}"
        for target, points in by_target.items()
    ]
    seeds, networks = (rows[0]["seeds"], rows[0]["n"]) if rows else (0, 0)
    return (
        "Searched networks are ahead of random networks of their space that take 95 to 100 % of "
        f"their latency and are trained alike: {', and '.join(texts)} of the reference network's "
        f"latency ({networks} random networks for each budget, from {seeds} seeds). Where the "
        "interval includes 0, the search is not shown to be worth anything.\n"
    )


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
