"""Accuracy and cost of one search for all budgets of a target, against one search per budget.

`search.share: target` runs one search against the middle budget and derives the network of every
budget from its architecture parameters. Measured on the small space whose networks were all trained
alone, for two targets, three budgets each and five new seeds: accuracy of the networks (looked up
in the committed table, see ground_truth.py) and cost in weight steps. Run
`python tests/benchmarks/sharing.py`; about ten minutes on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch

from tests.benchmarks import searching, tabular
from tests.benchmarks.lines import as_they_come, commit, keep
from tests.benchmarks.search_quality import SCHEDULE
from tests.benchmarks.truth import paired, truth_of

SEEDS = range(20, 25)
TARGETS = ("cpu", "mobile")
MIDDLE = 1
"""Index of the budget for which the shared search is run."""


def run(target: str, seed: int) -> list[dict[str, Any]]:
    """Lines with the network of a search per budget, and the one derived from the shared search."""
    torch.set_num_threads(1)
    table, budgets_ms = tabular.latency(target)
    own = [searching.searched(SCHEDULE, table, budget_ms, seed) for budget_ms in budgets_ms]
    middle, data = own[MIDDLE][0], searching.parts(searching.warm_up_of(SCHEDULE), seed)
    return [
        {
            "target": target,
            "seed": seed,
            "budget_ms": budget_ms,
            "own": tabular.name_of(result.path),
            "shared": tabular.name_of(searching.derived(middle, data, SCHEDULE, table, budget_ms)),
            "cost": result.cost,
        }
        for budget_ms, (_, result) in zip(budgets_ms, own, strict=True)
    ]


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, object]:
    """Summary over the seeds of one budget on one target."""
    target, budget_ms = lines[0]["target"], lines[0]["budget_ms"]
    truth, names = truth_of(target), tabular.names()
    means = truth.mean()
    by_how = {
        how: [float(means[names.index(line[how])]) for line in lines] for how in ("own", "shared")
    }
    away = paired([s - o for s, o in zip(by_how["shared"], by_how["own"], strict=True)])
    return {
        "what": f"a shared search less one for each budget, points, {target}, {budget_ms:g} ms",
        "own": round(fmean(by_how["own"]), 2),
        "shared": round(fmean(by_how["shared"]), 2),
        "difference": [round(value, 2) for value in (away.mean, away.low, away.high)],
        "same network": sum(line["own"] == line["shared"] for line in lines),
        "n": len(lines),
        "commit": commit(),
    }


def costs(lines: Sequence[dict[str, Any]]) -> dict[str, object]:
    """Weight steps of a sweep of one target, with one search per budget and with a shared one."""
    data = searching.parts(searching.warm_up_of(SCHEDULE), lines[0]["seed"])
    warm_up = SCHEDULE.warmup_epochs * data.weight.steps
    search = fmean(line["cost"] for line in lines) - warm_up
    number = len({line["budget_ms"] for line in lines}) // len(TARGETS)
    return {
        "what": "weight steps of a sweep of one target: a search for each budget, or one for all",
        "warm-up": warm_up,
        "search": round(search),
        "budgets": number,
        "none": round(warm_up + number * search),
        "target": round(warm_up + search),
        "commit": commit(),
    }


def main() -> None:
    """Run the searches, look up their networks and write the results."""
    jobs = [(target, seed) for seed in SEEDS for target in TARGETS]
    lines = [item for result in as_they_come(run, jobs, 2) for item in result]
    places = sorted({(item["target"], item["budget_ms"]) for item in lines})
    groups = [
        sorted(
            (item for item in lines if (item["target"], item["budget_ms"]) == place),
            key=lambda item: item["seed"],
        )
        for place in places
    ]
    keep("sharing", [*map(summary, groups), costs(lines)])


if __name__ == "__main__":
    main()
