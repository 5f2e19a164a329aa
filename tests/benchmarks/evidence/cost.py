"""What a sweep costs, in trainings of one network.

The unit is the time that the job took to train one found network alone, mean over all of them, on
the same workers as everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from tests.benchmarks.evidence.networks import Trained, of_kind

Row = dict[str, Any]


def cost_rows(networks: Sequence[Trained]) -> list[Row]:
    """Of the warm-up of a seed, of the search of a case, and of all cases of a seed."""
    found = of_kind(networks, "search")
    unit_s = fmean(one.retrain_s for one in found)
    warmup_s, search_s = (fmean(getattr(one, name) for one in found) for name in PARTS)
    cases = len({(one.own, one.budget) for one in found})
    rows: list[Row] = [
        {"what": "training one found network", "seconds": unit_s},
        {"what": "warm-up, once per sweep and seed", "seconds": warmup_s},
        {"what": "search, each case", "seconds": search_s},
        {
            "what": f"a sweep of {cases} cases per case, retraining included",
            "seconds": warmup_s / cases + search_s + unit_s,
        },
    ]
    return [
        {**row, "seconds": round(row["seconds"], 1), "trainings": round(row["seconds"] / unit_s, 2)}
        for row in rows
    ]


PARTS = ("warmup_s", "search_s")
