"""What the evidence says in a sentence, for the README's first screen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.benchmarks.evidence.markdown import AHEAD, Row, interval, linked, rows_of


def preferences() -> list[Row]:
    """Rows of networks of one target against those of another."""
    return [row for row in rows_of("networks") if " / searched for" in row["what"]]


def preferred() -> str:
    """In how many pairs a target's own networks are faster, in a sentence."""
    rows = preferences()
    own = [row for row in rows if _lowest(row) > 1]
    other = [row["what"].partition(":")[2].strip() for row in rows if _highest(row) < 1]
    ahead = [row for row in rows if row["times"][0] > 1]
    texts = [
        f"In {len(ahead)} of {len(rows)} pairs the networks that were searched for a target are "
        f"faster on it than those of another target, at equal accuracy, in the mean of "
        f"{max((row['n'] for row in rows), default=0)} seeds; in {len(own)} the 95 % interval is "
        "above 1"
    ]
    if other:
        texts.append(f"in {len(other)} they are slower ({'; '.join(other)})")
    return "; ".join(texts) + ".\n"


def _lowest(row: Row) -> float:
    """Of an interval; of one seed, which shows nothing, 0."""
    return float(row["times"][1]) if len(row["times"]) == 3 else 0.0


def _highest(row: Row) -> float:
    """The same of its upper end."""
    return float(row["times"][2]) if len(row["times"]) == 3 else math.inf


def claim() -> str:
    """The sentence at the top of the README."""
    rows = rows_of("networks")
    below = "one point below the highest accuracy of both"
    speeds = [row for row in rows if f"MobileNetV2 {below}" in row["what"]]
    again = [row for row in rows if f"the reference {below}" in row["what"]]
    seeds, device = (speeds[0]["n"], speeds[0]["device"]) if speeds else (0, "")
    return (
        f"**At an accuracy that both reach, MobileNetV2 takes {_on_targets(speeds)} of networks "
        f"that it finds.** The network of their own space with one op everywhere "
        f"takes {_on_targets(again)}.\n(One point below the highest accuracy of both; "
        f"mean and 95 % interval over {seeds} seeds of search and training; same images and "
        f"training, latencies from one run on {device}.)\n"
    )


def _on_targets(rows: Sequence[Row]) -> str:
    """Times on each of them."""
    return " and ".join(
        f"{linked(row, interval(row['times']))} times the time on `{row['what'].partition(':')[0]}`"
        for row in rows
    )


def longer() -> str:
    """What remains after a longer training, in a sentence."""
    rows = [row for row in rows_of("longer") if "than MobileNetV2" in row["what"]]
    at, below = (f"{linked(row, interval(row['times']))} (at {row['top1']:g} %)" for row in rows)
    return (
        f"After a training four times as long (24 epochs, one seed) MobileNetV2 takes on `cpu`, at "
        f"the highest accuracy of both and a point below, {at} and {below} times the time.\n"
    )


def beyond_chance() -> str:
    """What found networks are ahead of random ones as slow, in a sentence."""
    rows = rows_of("random")
    texts = [
        f"{linked(row, interval(row[AHEAD]))} points on `{place}` at {budget} of the reference"
        for row in rows
        for place, _, budget in [row["what"].partition(":")[0].partition(", budget ")]
    ]
    seeds, networks = (rows[0]["seeds"], rows[0]["n"]) if rows else (0, 0)
    return (
        f"Found networks are ahead of random ones of their space, as slow and trained alike, by "
        f"{', '.join(texts)} ({networks} random networks each, in {seeds} seeds).\n"
    )
