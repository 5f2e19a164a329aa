"""Searched networks against MobileNetV2 at several widths: accuracy at equal latency, and speed.

The reference network of the space, with one op everywhere, shows what the space is worth without a
search.
Both fronts of a comparison come from one seed, so that the differences include the training noise
of both; the interval over seeds is Student's 95 % interval. Means of ratios are geometric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import fmean, stdev
from typing import Any

from tests.benchmarks.evidence.fronts import Front, Network, highest_of_all, speed_up
from tests.benchmarks.evidence.networks import Trained, of_kind, seeds
from tests.benchmarks.truth import paired

Row = dict[str, Any]
Fronts = Mapping[int, Front]
"""Fronts by seed."""
PLACES = {
    "at the highest accuracy of both": 0.0,
    "one point below the highest accuracy of both": 1.0,
}
"""Accuracies at which speeds are compared, in points below the highest that both reach."""


def front_of(networks: Sequence[Trained], target: str) -> Front:
    """Front of networks of one seed on a target."""
    return Front.of([Network(network.ms[target], network.top1) for network in networks])


def budget_rows(networks: Sequence[Trained], target: str) -> list[Row]:
    """A row per budget of a target: the searched networks and their lead over MobileNetV2.

    The lead in points is averaged over the seeds in which MobileNetV2 has both faster and slower
    networks than the searched one; `covered` counts them. It is None if there are none.
    """
    result = of_kind(networks, "search", target)
    fronts = _fronts(of_kind(networks, "baseline"), target)
    rows = []
    for budget in sorted({str(item.budget) for item in result}, key=lambda b: float(b.strip(" %"))):
        some = [item for item in result if str(item.budget) == budget]
        beside = [fronts[item.seed].top1_at(item.ms[target]) for item in some]
        away = [item.top1 - b for item, b in zip(some, beside, strict=True) if b is not None]
        budgets = [item.budget_ms for item in some if item.budget_ms is not None]
        rows.append(
            {
                "what": f"{target}, budget {budget}: found by search",
                "budget_ms": round(fmean(budgets), 4),
                "ms": round(fmean(item.ms[target] for item in some), 4),
                **accuracies(some),
                "points over MobileNetV2 at its latency": mean_with_interval(away)
                if away
                else None,
                "covered": len(away),
            }
        )
    return rows


def width_rows(networks: Sequence[Trained], target: str) -> list[Row]:
    """A row for MobileNetV2 at each width, and one for the reference network."""
    result = of_kind(networks, "baseline")
    names = sorted({item.name for item in result}, key=lambda name: float(name.rpartition("_")[2]))
    groups = {name: [item for item in result if item.name == name] for name in names}
    groups["reference, without a search"] = of_kind(networks, "reference", target)
    return [
        {
            "what": f"{target}: {name}",
            "ms": round(fmean(item.ms[target] for item in some), 4),
            **accuracies(some),
        }
        for name, some in groups.items()
        if some
    ]


def speed_rows(networks: Sequence[Trained], target: str) -> list[Row]:
    """Speed-up over MobileNetV2 and over the reference network, at equal accuracy.

    Compared at the highest accuracy that both reach, and one point below it: there fronts are
    steep, so that chance gains in the flat end matter little.
    """
    ours = _fronts(of_kind(networks, "search", target), target)
    others = {
        "MobileNetV2": of_kind(networks, "baseline"),
        "the reference": of_kind(networks, "reference", target),
    }
    return [
        _speed_row(f"{target}: times faster than {name} {where}", ours, theirs, below)
        for name, some in others.items()
        for where, below in PLACES.items()
        if (theirs := _fronts(some, target))
    ]


def _speed_row(what: str, ours: Fronts, theirs: Fronts, below: float) -> Row:
    """A row of speed-ups.

    `points ahead` is how much more accurate our fastest network is than the compared accuracy, 0 if
    it is not.
    """
    pairs = [(ours[seed], theirs[seed]) for seed in ours]
    places = [highest_of_all(pair) - below for pair in pairs]
    ahead = [
        max(0.0, our.networks[0].top1 - top1) for (our, _), top1 in zip(pairs, places, strict=True)
    ]
    return {
        "what": what,
        "top1": round(fmean(places), 2),
        "n": len(pairs),
        "times": _times([speed_up(*pair, below) for pair in pairs]),
        "points ahead": round(fmean(ahead), 2),
        "their fastest is better still": sum(
            their.starts_above(top1) for (_, their), top1 in zip(pairs, places, strict=True)
        ),
    }


def _times(ratios: Sequence[float]) -> list[float]:
    """Geometric mean, followed by the ends of its interval if there are several ratios."""
    if len(ratios) < 2:
        return [round(item, 2) for item in ratios]
    logs = paired([log(ratio) for ratio in ratios])
    return [round(exp(item), 2) for item in (logs.mean, logs.low, logs.high)]


def _fronts(networks: Sequence[Trained], target: str) -> dict[int, Front]:
    return {
        seed: front_of([network for network in networks if network.seed == seed], target)
        for seed in seeds(networks)
    }


def accuracies(networks: Sequence[Trained]) -> Row:
    """Mean and standard deviation of top-1 in percent, and the number of networks."""
    result = [network.top1 for network in networks]
    return {
        "top1": round(fmean(result), 2),
        "deviation": round(stdev(result), 2) if len(result) > 1 else None,
        "n": len(result),
    }


def mean_with_interval(away: Sequence[float]) -> list[float]:
    """Mean, followed by the ends of its interval if there are several values."""
    if len(away) < 2:
        return [round(item, 2) for item in away]
    result = paired(away)
    return [round(item, 2) for item in (result.mean, result.low, result.high)]
