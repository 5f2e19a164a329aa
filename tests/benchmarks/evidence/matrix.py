"""Cross-target comparison: networks searched for each target, on every target.

Networks are compared at equal accuracy. The networks searched for a target form a front of accuracy
against latency on their own target and on each other one. All fronts are read at one accuracy,
WITHIN points below the highest that all of them reach: there they are steep, so that chance gains
in the flat end do not decide. All fronts of a comparison come from one seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from statistics import fmean
from typing import Any

from tests.benchmarks.evidence.curve import front_of
from tests.benchmarks.evidence.fronts import Front, highest_of_all
from tests.benchmarks.evidence.networks import Trained, of_kind, seeds
from tests.benchmarks.truth import paired

Row = dict[str, Any]
WITHIN = 1.0
"""Points of top-1 below the highest accuracy that all fronts reach."""


def matrix_rows(networks: Sequence[Trained]) -> list[Row]:
    """A row per target and budget: mean accuracy, and mean latency on all targets."""
    result = of_kind(networks, "search")
    rows = []
    for own, budget in sorted({(item.own, str(item.budget)) for item in result}):
        some = [item for item in result if (item.own, str(item.budget)) == (own, budget)]
        rows.append(
            {
                "what": f"searched for {own}, budget {budget}",
                "top1": round(fmean(item.top1 for item in some), 2),
                "ms": {
                    name: round(fmean(item.ms[name] for item in some), 4) for name in some[0].ms
                },
                "n": len(some),
            }
        )
    return rows


def equal_rows(networks: Sequence[Trained]) -> list[Row]:
    """A row per target: latency of its networks on all targets, at equal accuracy."""
    ms, top1, _ = _at_equal_accuracy(of_kind(networks, "search"))
    owns, targets = ({key[i]: None for key in ms} for i in (0, 1))
    return [
        {
            "what": f"at equal accuracy: searched for {own}",
            "top1": round(fmean(top1), 2),
            "ms": {name: round(_mean(ms[own, name]), 4) for name in targets},
            "n": len(top1),
        }
        for own in owns
    ]


def preference_rows(networks: Sequence[Trained]) -> list[Row]:
    """A row per pair of targets: how much slower the networks of one are on the other.

    If the fastest network of the other target is more accurate than asked, the ratio is an upper
    bound: faster ones were not measured. `their fastest is better still` counts such seeds.
    """
    ms, top1, above = _at_equal_accuracy(of_kind(networks, "search"))
    rows = []
    for other, target in sorted(ms, key=lambda key: key[::-1]):
        if other == target:
            continue
        pairs = zip(ms[other, target], ms[target, target], strict=True)
        logs = [log(theirs / own) for theirs, own in pairs]
        what = f"on {target}, at equal accuracy: searched for {other} / searched for {target}"
        result = {"top1": round(fmean(top1), 2), "times": _times(logs), "n": len(logs)}
        said = {"their fastest is better still": sum(above[other, target])}
        rows.append({"what": what, **result, **said, "by table": target in networks[0].by_table})
    return rows


def _at_equal_accuracy(
    found: Sequence[Trained],
) -> tuple[dict[tuple[str, str], list[float]], list[float], dict[tuple[str, str], list[bool]]]:
    """Latencies by (searched for, measured on), one per seed; the accuracy of each seed; and by the
    same keys, whether the fastest network of a seed is more accurate than that."""
    ms: dict[tuple[str, str], list[float]] = {}
    above: dict[tuple[str, str], list[bool]] = {}
    accuracies = []
    for seed in seeds(found):
        fronts = _fronts([item for item in found if item.seed == seed])
        accuracies.append(highest_of_all(fronts.values()) - WITHIN)
        for key, front in fronts.items():
            ms.setdefault(key, []).append(front.ms_for(accuracies[-1]))
            above.setdefault(key, []).append(front.starts_above(accuracies[-1]))
    return ms, accuracies, above


def _fronts(found: Sequence[Trained]) -> dict[tuple[str, str], Front]:
    """Fronts by (searched for, measured on)."""
    owns = sorted({item.own for item in found})
    return {
        (own, target): front_of([item for item in found if item.own == own], target)
        for own in owns
        for target in owns
    }


def _mean(values: Sequence[float]) -> float:
    return exp(fmean(log(value) for value in values))


def _times(logs: Sequence[float]) -> list[float]:
    """Geometric mean, followed by the ends of its interval if there are several values."""
    if len(logs) < 2:
        return [round(exp(logs[0]), 2)]
    result = paired(logs)
    return [round(exp(item), 2) for item in (result.mean, result.low, result.high)]
