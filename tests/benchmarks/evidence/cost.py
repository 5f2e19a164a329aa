"""Cost of a sweep, in trainings of one network.

The unit is the time that the job took to train one searched network alone, mean over all of them.
Seconds are worker seconds: a warm-up run by two workers counts twice its wall-clock time. The cost
of the published recipe is computed from the measured times of its steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from orchestration.planning.plan import Plan, search_steps
from orchestration.scheduling.estimate import training_steps
from tests.benchmarks.evidence.networks import Trained, of_kind

Row = dict[str, Any]


@dataclass(frozen=True)
class Steps:
    """Numbers of steps of a job."""

    warmup: int
    """Weight steps, once for all cases of a seed."""
    search: int
    """Weight steps of a case after the warm-up."""
    updates: int
    """Updates of the architecture parameters of a case."""
    training: int
    """Steps of training one network alone."""

    @classmethod
    def of(cls, plan: Plan) -> Steps:
        """Numbers of steps of a planned job."""
        search, epoch = plan.job.search, search_steps(plan.job, plan.data)
        return cls(
            search.warmup_epochs * epoch,
            search.epochs * epoch,
            search.updates(epoch),
            training_steps(plan),
        )


def cost_rows(networks: Sequence[Trained], steps: Steps) -> list[Row]:
    """Cost of a training, of the warm-up of a seed, of a search, and of a whole case."""
    result = of_kind(networks, "search")
    unit_s = fmean(item.retrain_s for item in result)
    warmup_s, search_s = (fmean(getattr(item, name) for item in result) for name in PARTS)
    cases = len({(item.own, item.budget) for item in result})
    rows: list[Row] = [
        {"what": "training one found network", "steps": steps.training, "seconds": unit_s},
        {"what": "warm-up, once per sweep and seed", "steps": steps.warmup, "seconds": warmup_s},
        {
            "what": "search, each case",
            "steps": steps.search,
            "updates": steps.updates,
            "seconds": search_s,
        },
        {
            "what": f"each of {cases} cases, its part of the warm-up and its training included",
            "steps": round(steps.warmup / cases) + steps.search + steps.training,
            "updates": steps.updates,
            "seconds": warmup_s / cases + search_s + unit_s,
        },
        {
            "what": "a case that stands alone, its warm-up and its training included",
            "steps": steps.warmup + steps.search + steps.training,
            "updates": steps.updates,
            "seconds": warmup_s + search_s + unit_s,
        },
    ]
    return [
        {**row, "seconds": round(row["seconds"], 1), "trainings": round(row["seconds"] / unit_s, 2)}
        for row in rows
    ]


PARTS = ("warmup_s", "search_s")


def published_row(steps: Steps, seconds: Mapping[str, float]) -> Row:
    """Cost of one search and one training by the published recipe, in such trainings.

    Args:
        steps: numbers of steps of the recipe.
        seconds: time of a "plain training step", a "weight step" and a "two-path alpha step".
    """
    training_s = steps.training * seconds["plain training step"]
    weights_s = (steps.warmup + steps.search) * seconds["weight step"]
    search_s = weights_s + steps.updates * seconds["two-path alpha step"]
    return {
        "what": "the published recipe, warm-up, search and training, on paper",
        "steps": steps.warmup + steps.search + steps.training,
        "updates": steps.updates,
        "trainings": round(1 + search_s / training_s, 2),
    }
