"""How close a search ends to its budget, by objective and by how much the loss gains from latency.

Run `python tests/benchmarks/budgets.py`. Only architecture parameters are trained, on the published
space with the latency table of the Pixel 1. The loss is `c * (1 - E[MACs] / MACs of the largest
network)` with normal noise on its gradients; see `tests/support/synthetic_search.py`. All runs of
an objective use the same settings. One JSON line per objective, length, noise and c: the distance
of the mean expected latency of the last updates from 75, 85, 100, 120 and 150 ms, in percent.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))  # the benchmark runs in a checkout, installed or not

import torch

from nas_core.search_settings import ObjectiveName
from tests.benchmarks.lines import keep, line
from tests.support.synthetic_search import search_of_alphas

BUDGETS_MS = (75.0, 85.0, 100.0, 120.0, 150.0)
GAINS = (0.1, 0.5, 2.0)
RUNS: list[tuple[ObjectiveName, int, float]] = [
    ("learnt", 2500, 0.01),
    ("absolute", 2500, 0.01),
    ("add_linear", 2500, 0.01),
    ("learnt", 2500, 0.1),
    ("learnt", 136, 0.01),
    ("learnt", 136, 0.1),
]
"""Objective, updates, standard deviation of the noise."""


def lines() -> Iterator[dict[str, object]]:
    """Result lines of all runs."""
    for objective, steps, noise in RUNS:
        for c in GAINS:
            ended = [
                search_of_alphas(c, ms, objective, steps=steps, noise=noise)[0] for ms in BUDGETS_MS
            ]
            misses = [100 * (at / ms - 1) for at, ms in zip(ended, BUDGETS_MS, strict=True)]
            what = f"{objective}, {steps} updates, noise {noise:g}, c = {c:g}: % from the budget"
            values = [round(miss, 2) for miss in misses]
            print(what, values, file=sys.stderr)
            yield {**line(what, misses), "budgets_ms": BUDGETS_MS, "values": values}


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep("budgets", list(lines()))
