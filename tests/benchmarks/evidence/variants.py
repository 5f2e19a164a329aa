"""Searches of the evidence's job with one part of the method changed, against those as they are.

What stays equal is taken from there: images, tables, warm-ups, budgets, seeds and training. Found
networks of both are within the budget; the difference is that of accuracy, averaged over targets
for each seed, with Student's 95 % interval over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from tests.benchmarks.evidence.curve import mean_with_interval
from tests.benchmarks.evidence.networks import Trained, of_kind, seeds

Row = dict[str, Any]
BUDGET, TARGETS = "50%", ("cpu", "mobile")
VARIANTS: dict[str, str] = {"pairs not settled": "search.settle_pairs=false"}
"""By what is said of them: what they change. A warm-up depends on none."""


def settings(what: str) -> list[str]:
    """Of the job with one change, at one budget of both targets."""
    cases = ", ".join(f'{{target: {target}, budgets_ms: ["{BUDGET}"]}}' for target in TARGETS)
    name = f"compare_mobilenet_{what.replace(' ', '_')}"
    return [f"name={name}", f"cases=[{cases}]", VARIANTS[what], "measure.across=false"]


def variant_row(what: str, networks: Sequence[Trained], changed: Sequence[Trained]) -> Row:
    """What is found with the change, less what is found without."""
    with_it, without = _by_seed(changed), _by_seed(networks)
    away = [with_it[seed] - without[seed] for seed in with_it]
    return {
        "what": f"{what}, on the space of the evidence",
        "top1": round(fmean(with_it.values()), 2),
        "points": mean_with_interval(away),
        "n": len(away),
    }


def _by_seed(networks: Sequence[Trained]) -> dict[int, float]:
    some = [one for one in of_kind(networks, "search") if (one.own, str(one.budget)) in PLACES]
    return {seed: fmean(one.top1 for one in some if one.seed == seed) for seed in seeds(some)}


PLACES = {(target, BUDGET) for target in TARGETS}
