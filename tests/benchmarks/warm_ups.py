"""Ranking of the tabular benchmark's networks by supernets, for several warm-up settings.

Run `python tests/benchmarks/warm_ups.py`. Every variant is warmed up from two tuning seeds; latency
plays no role. All 192 networks are then scored with the supernet's weights and compared with their
accuracy when trained alone. Lines are written as they come; a second start runs what is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch

from nas_core.ranking import spearman
from tests.benchmarks import searching, tabular
from tests.benchmarks.lines import as_they_come, commit, line, results_file
from tests.benchmarks.search_quality import SCHEDULE, ranked_paths
from tests.benchmarks.truth import truth_of

BASE: dict[str, Any] = {"warmup_epochs": 32, "warmup_lr": 0.05, "warmup_sampling": "fair"}
"""Settings of the base variant; the others change some of them."""
VARIANTS: dict[str, dict[str, Any]] = {
    "as in searches": {"warmup_epochs": 16, "warmup_lr": 0.1},
    "as in searches, ops that begin independently": {
        "warmup_epochs": 16,
        "warmup_lr": 0.1,
        "op_start": "independent",
    },
    "32 epochs": {},
    "uniform paths": {"warmup_sampling": "uniform"},
    "16 epochs": {"warmup_epochs": 16},
    "64 epochs": {"warmup_epochs": 64},
    "half the rate": {"warmup_lr": 0.025},
    "twice the rate": {"warmup_lr": 0.1},
    "op warm-up .25": {"op_warmup": 0.25},
    "op warm-up .5": {"op_warmup": 0.5},
    "op warm-up .25, 16 epochs": {"op_warmup": 0.25, "warmup_epochs": 16},
    "op warm-up .25, 64 epochs": {"op_warmup": 0.25, "warmup_epochs": 64},
}


def examine(name: str, seed: int) -> dict[str, Any]:
    """Warm up one supernet and score all networks; return its result line."""
    torch.set_num_threads(1)
    settings = replace(SCHEDULE, **(BASE | VARIANTS[name]))
    began = time.process_time()
    state = searching.warmed_up(searching.warm_up_of(settings), seed).state
    seconds = time.process_time() - began
    scores = searching.supernet_scores(state, settings, seed, tabular.all_paths())
    by_loss, by_accuracy = [-score.loss for score in scores], [score.top1 for score in scores]
    return {
        "what": name,
        "seed": seed,
        "CPU s": round(seconds),
        "mean top-1": round(100 * sum(by_accuracy) / len(scores), 1),
        **_orders("cross entropy", by_loss),
        **_orders("accuracy", by_accuracy),
        "digest": tabular.digest(),
        "device": line("", [0.0])["device"],
        "commit": commit(),
    }


def _orders(name: str, said: list[float]) -> dict[str, float]:
    """Spearman correlation with the ground truth, over all networks and over the 60 of searches."""
    alone = truth_of("cpu").mean().tolist()
    some = [tabular.all_paths().index(path) for path in ranked_paths()]
    return {
        f"Spearman by {name}": round(spearman(said, alone), 3),
        f"Spearman by {name}, 60": round(
            spearman([said[i] for i in some], [alone[i] for i in some]), 3
        ),
    }


def main() -> None:
    """Examine the variants and seeds that are missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="supernets per variant")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--processes", type=int, default=2, help="supernets at a time")
    options = parser.parse_args()
    file = results_file("warm_ups")
    texts = file.read_text().splitlines() if file.exists() else []
    done = {(item["what"], item["seed"]) for item in map(json.loads, texts)}
    wanted = [(name, seed) for seed in range(options.seeds) for name in options.only]
    missing = [item for item in wanted if item not in done]
    for result in as_they_come(examine, missing, options.processes):
        with file.open("a") as out:
            out.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
