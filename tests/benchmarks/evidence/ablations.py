"""Ablations: searches with and without each part of the method, on the tabular benchmark.

The base is the default; a variant changes one thing. All use the same seeds, on both targets at the
middle budget of each. The accuracy of a network is looked up in the committed table of networks
trained alone. The figure of a variant is the mean over both targets for each seed, less that of the
base, with Student's 95 % interval over seeds. The interval does not include the noise of the looked
up accuracies, which are means of two or more trainings. The schedule is that of
`search_quality.py`.

Two parts need no search of their own. Exact derivation is compared with taking the most probable op
of every site in the searches of the base. A shared warm-up does not change the network of a case
(they are equal bit for bit), only the cost: the base is compared with searches whose warm-up is
shortened so that six of them cost as much as the shared one.

`python tests/benchmarks/evidence/ablations.py` decides the defaults: the same on `cpu` alone, at
all budgets, with the seeds used for tuning; its lines go to `results/`. Searches are kept in
`~/proxyless/bench`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY))

from nas_core.search_settings import SearchSettings
from tests.benchmarks import tabular
from tests.benchmarks.lines import TORCH, commit, keep, line
from tests.benchmarks.search_quality import SCHEDULE, Job, run_missing
from tests.benchmarks.truth import Truth, paired, truth_of

BASE = "Proxyless-G with latency loss"
TARGETS = ("cpu", "mobile")
MIDDLE = len(tabular.BUDGET_SHARES) // 2
CASES = 6
"""Cases of a sweep that share one warm-up: two targets with three budgets each."""
CHANGES: dict[str, dict[str, Any]] = {
    BASE: {},
    "Proxyless-G without latency loss, derived within the budget": {"objective": "none"},
    "Proxyless-R": {"strategy": "reinforce"},
    "every op equally often in the warm-up": {"warmup_sampling": "fair"},
    "ops that begin independently": {"op_start": "independent"},
    "pairs settled, as published": {"settle_pairs": True},
    "a warm-up of its own, for its part of the price": {
        "warmup_epochs": max(1, round(SCHEDULE.warmup_epochs / CASES))
    },
}
Place = tuple[str, int]
"""A target, and the index of one of its budgets."""
REPORTED: list[Place] = [(target, MIDDLE) for target in TARGETS]
TUNED: list[Place] = [("cpu", number) for number in range(len(tabular.BUDGET_SHARES))]
QUICK = replace(SCHEDULE, warmup_epochs=4, epochs=2)

Lines = Sequence[Mapping[str, Any]]


def searched(
    file: Path,
    seeds: Sequence[int],
    schedule: SearchSettings = SCHEDULE,
    places: Sequence[Place] = REPORTED,
) -> dict[str, list[dict[str, Any]]]:
    """Result lines of the searches of each variant. Two processes run those missing in `file`."""
    jobs = {
        name: _jobs(replace(schedule, **changes), seeds, places)
        for name, changes in CHANGES.items()
    }
    every = [job for some in jobs.values() for job in some]
    lines = dict(zip(map(Job.key, every), run_missing(every, 2, file), strict=True))
    return {name: [lines[job.key()] for job in some] for name, some in jobs.items()}


def _jobs(settings: SearchSettings, seeds: Sequence[int], places: Sequence[Place]) -> list[Job]:
    return [
        Job(target, budget, seed, settings, is_ranked=False)
        for target, budget in places
        for seed in seeds
    ]


def top1(item: Mapping[str, Any], path: str = "path") -> float:
    """Top-1 of the network of a search, trained alone, percent."""
    return float(_truth(item["target"]).mean()[tabular.names().index(item[path])])


@cache
def _truth(target: str) -> Truth:
    return truth_of(target)


def by_seed(lines: Lines) -> dict[int, float]:
    """Mean accuracy over targets and budgets."""
    seeds = sorted({item["seed"] for item in lines})
    return {seed: fmean(top1(item) for item in lines if item["seed"] == seed) for seed in seeds}


def differences(searches: Mapping[str, Lines]) -> list[dict[str, Any]]:
    """A row per variant: accuracy, difference to the base, and cost."""
    base = by_seed(searches[BASE])
    rows = []
    for name, some in searches.items():
        result = by_seed(some)
        row: dict[str, Any] = {
            "what": name,
            "top1": round(fmean(result.values()), 2),
            "cost": round(fmean(item["cost"] for item in some)),
            "expected_ms / budget, largest": round(
                max(item["expected_ms"] / item["budget_ms"] for item in some), 2
            ),
            "n": len(result),
        }
        if name != BASE:
            away = paired([result[seed] - base[seed] for seed in base])
            row["points"] = [round(value, 2) for value in (away.mean, away.low, away.high)]
        rows.append(row)
    return rows


def derivation(base: Lines) -> dict[str, Any]:
    """How often the most probable op of every site exceeds the budget, in searches of the base.

    Where it does not, exact derivation chooses the same network.
    """
    over = [item for item in base if item["argmax_ms"] > item["budget_ms"]]
    return {
        "what": "most probable ops of all sites, in place of the exact derivation",
        "searches": len(base),
        "over the budget": len(over),
        "largest excess": round(
            max((item["argmax_ms"] / item["budget_ms"] - 1 for item in over), default=0.0), 3
        ),
    }


def main() -> None:
    """Run the ablations with the seeds used for tuning; a second start runs what is missing."""
    state = Path.home() / "proxyless" / "bench"
    state.mkdir(parents=True, exist_ok=True)
    result = searched(state / "ablations_tuning.jsonl", range(5), places=TUNED)
    where = {"device": line("", [0.0])["device"], "torch": TORCH, "commit": commit()}
    rows = [*differences(result), derivation(result[BASE])]
    keep("ablations_tuning", [{**where, **row} for row in rows])


if __name__ == "__main__":
    main()
