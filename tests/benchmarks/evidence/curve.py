"""Searched networks against MobileNetV2 at several widths: accuracy at equal latency, and speed.

Both fronts of a comparison are of one seed, so that its differences hold the noise of training of
both; over seeds stands Student's 95 % interval. Ratios are averaged by their logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from statistics import fmean, stdev
from typing import Any

from tests.benchmarks.evidence.fronts import Front, Network, highest_of_all, speed_up
from tests.benchmarks.evidence.networks import Trained, of_kind, seeds
from tests.benchmarks.truth import paired

Row = dict[str, Any]
PLACES = {
    "at the highest accuracy of both": 0.0,
    "one point below the highest accuracy of both": 1.0,
}
"""Where speeds are compared, in points below what both reach."""


def front_of(networks: Sequence[Trained], target: str) -> Front:
    """Of networks of one seed, as they are on a target."""
    return Front.of([Network(one.ms[target], one.top1) for one in networks])


def budget_rows(networks: Sequence[Trained], target: str) -> list[Row]:
    """For each budget of a target: what was found, and how much better than MobileNetV2 it is.

    `points` is None where MobileNetV2 has no network as fast as one that was found.
    """
    found = of_kind(networks, "search", target)
    fronts = _fronts(of_kind(networks, "baseline"), target)
    rows = []
    for budget in sorted({str(one.budget) for one in found}, key=lambda b: float(b.strip(" %"))):
        some = [one for one in found if str(one.budget) == budget]
        beside = [fronts[one.seed].top1_at(one.ms[target]) for one in some]
        away = [one.top1 - b for one, b in zip(some, beside, strict=True) if b is not None]
        rows.append(
            {
                "what": f"{target}, budget {budget}: found by search",
                "ms": round(fmean(one.ms[target] for one in some), 4),
                **_accuracy(some),
                "points over MobileNetV2 at its latency": (
                    _interval(away) if len(away) == len(some) else None
                ),
            }
        )
    return rows


def width_rows(networks: Sequence[Trained], target: str) -> list[Row]:
    """MobileNetV2 at each of its widths."""
    found = of_kind(networks, "baseline")
    names = sorted({one.name for one in found}, key=lambda name: float(name.rpartition("_")[2]))
    rows = []
    for name in names:
        some = [one for one in found if one.name == name]
        ms = round(fmean(one.ms[target] for one in some), 4)
        rows.append({"what": f"{target}: {name}", "ms": ms, **_accuracy(some)})
    return rows


def speed_rows(networks: Sequence[Trained], target: str) -> list[Row]:
    """How many times faster, at the highest accuracy that both reach and one point below it, where
    fronts are steep: what a network of the flat end gains by chance decides little there."""
    ours = _fronts(of_kind(networks, "search", target), target)
    theirs = _fronts(of_kind(networks, "baseline"), target)
    pairs = [(ours[seed], theirs[seed]) for seed in ours]
    return [
        {
            "what": f"{target}: times faster than MobileNetV2 {where}",
            "top1": round(fmean(highest_of_all(pair) - below for pair in pairs), 2),
            "n": len(pairs),
            "times": _times([speed_up(*pair, below) for pair in pairs]),
        }
        for where, below in PLACES.items()
    ]


def _times(ratios: Sequence[float]) -> list[float]:
    """Mean, and its interval where there are several."""
    if len(ratios) < 2:
        return [round(one, 2) for one in ratios]
    logs = paired([log(ratio) for ratio in ratios])
    return [round(exp(one), 2) for one in (logs.mean, logs.low, logs.high)]


def _fronts(networks: Sequence[Trained], target: str) -> dict[int, Front]:
    return {
        seed: front_of([one for one in networks if one.seed == seed], target)
        for seed in seeds(networks)
    }


def _accuracy(networks: Sequence[Trained]) -> Row:
    found = [one.top1 for one in networks]
    return {
        "top1": round(fmean(found), 2),
        "deviation": round(stdev(found), 2) if len(found) > 1 else None,
        "n": len(found),
    }


def _interval(away: Sequence[float]) -> list[float]:
    """Mean, and its interval where there are several."""
    if len(away) < 2:
        return [round(one, 2) for one in away]
    found = paired(away)
    return [round(one, 2) for one in (found.mean, found.low, found.high)]
