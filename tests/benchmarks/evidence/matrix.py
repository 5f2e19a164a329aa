"""Hardware prefers specialized models: every searched network on every target, over seeds.

Networks compare where the same was asked for in the words of the job, e.g. "60%": for each such
budget, on each target, the network that was searched for it against those for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from statistics import fmean
from typing import Any

from tests.benchmarks.evidence.networks import Trained, of_kind
from tests.benchmarks.truth import paired

Row = dict[str, Any]


def matrix_rows(networks: Sequence[Trained]) -> list[Row]:
    """A row for each network, whatever its seed: its accuracy, and its latency on all targets."""
    found = of_kind(networks, "search")
    rows = []
    for own, budget in sorted({(one.own, str(one.budget)) for one in found}):
        some = [one for one in found if (one.own, str(one.budget)) == (own, budget)]
        rows.append(
            {
                "what": f"searched for {own}, budget {budget}",
                "top1": round(fmean(one.top1 for one in some), 2),
                "ms": {name: round(fmean(one.ms[name] for one in some), 4) for name in some[0].ms},
                "n": len(some),
            }
        )
    return rows


def preference_rows(networks: Sequence[Trained]) -> list[Row]:
    """On each target, how much longer the network of another target takes than its own.

    `points` is how much more accurate the own network is.
    """
    found = of_kind(networks, "search")
    targets = sorted({one.own for one in found})
    return [
        _preference(found, target, other, budget)
        for target in targets
        for other in targets
        if other != target
        for budget in _shared(found, target, other)
    ]


def _shared(found: Sequence[Trained], target: str, other: str) -> list[str]:
    """Budgets in words that both were searched for."""
    words = [{str(one.budget) for one in found if one.own == own} for own in (target, other)]
    return sorted(set.intersection(*words))


def _preference(found: Sequence[Trained], target: str, other: str, budget: str) -> Row:
    own, others = (
        {one.seed: one for one in found if one.own == name and str(one.budget) == budget}
        for name in (target, other)
    )
    logs = [log(others[seed].ms[target] / own[seed].ms[target]) for seed in own]
    points = [own[seed].top1 - others[seed].top1 for seed in own]
    row: Row = {"what": f"on {target}, budget {budget}: network for {other} / network for {target}"}
    if len(logs) < 2:
        return {**row, "times": [round(exp(logs[0]), 2)], "points": [round(points[0], 2)], "n": 1}
    times, better = paired(logs), paired(points)
    return {
        **row,
        "times": [round(exp(one), 2) for one in (times.mean, times.low, times.high)],
        "points": [round(one, 2) for one in (better.mean, better.low, better.high)],
        "n": len(logs),
    }
