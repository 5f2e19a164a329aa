"""Speed at which a supernet learns, by the initialization of its ops (`search.op_start`).

Run `python tests/benchmarks/op_starts.py`. Per variant and tuning seed, one supernet is warmed up
for eight epochs on one thread, on the space and images of `jobs/compare_mobilenet.yaml` with less
noise. Reported is the top-1 of sampled paths on the training images in each epoch. Lines are
written as they come; a second start runs what is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch

from cluster.storage import Storage
from nas_core.batch import SearchData
from nas_core.blocks import MBConv
from nas_core.objective import LatencyGoal
from nas_core.search import search_epochs, start_search
from nas_core.supernet import Supernet
from nas_core.workers import SingleProcess
from orchestration import load_job
from orchestration.data.loader import MemoryLoader
from orchestration.data.loading import load_dataset, split_classes
from tests.benchmarks.lines import as_they_come, commit, line, results_file
from tests.support.tiny import noisy_table

JOB = REPOSITORY / "jobs" / "compare_mobilenet.yaml"
CPU = torch.device("cpu")
EPOCHS, NOISE = 8, 0.1
"""Epochs, half as many as in the job, and noise of the images, less than in the job."""


@torch.no_grad()
def scale_shortcuts(supernet: Supernet, scale: float) -> None:
    """Set the scale of the last BatchNorm of all ops with a shortcut."""
    for op in supernet.modules():
        if isinstance(op, MBConv) and op.has_shortcut:
            op.layers[-1].weight.fill_(scale)  # type: ignore[operator]


@dataclass(frozen=True)
class Variant:
    """Initialization of a supernet, and settings of its warm-up."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Search settings that differ from the job."""
    shortcut_scale: float | None = None
    """Scale of the BatchNorm before a shortcut; None leaves it unchanged."""


INDEPENDENT = {"op_start": "independent"}
VARIANTS = {
    "independently": Variant(INDEPENDENT),
    "as one function": Variant(shortcut_scale=1.0),
    "as the skip": Variant(INDEPENDENT, shortcut_scale=0.0),
    "aligned, i.e. both": Variant(),
    "independently, rate 0.02": Variant({**INDEPENDENT, "warmup_lr": 0.02}),
    "independently, rate 0.1": Variant({**INDEPENDENT, "warmup_lr": 0.1}),
    "independently, batch 8": Variant({**INDEPENDENT, "batch_size": 8}),
    "independently, batch 64": Variant({**INDEPENDENT, "batch_size": 64, "warmup_lr": 0.1}),
}


def learnt(name: str, seed: int, store: str) -> dict[str, Any]:
    """Warm up one supernet; return its result line."""
    torch.set_num_threads(1)
    variant = VARIANTS[name]
    words = {"warmup_lr": 0.05, "warmup_epochs": EPOCHS, **variant.settings}
    given = [f"search.{key}={value}" for key, value in words.items()]
    job = load_job(JOB, [f"storage={store}", f"data.glyphs.noise={NOISE}", *given])
    data = load_dataset(job.data, seed, Storage(store))
    space = job.space.build(len(data.classes), *data.shape[:2])
    held, weight = split_classes(
        data.train, job.search.architecture_share, seed, "architecture split"
    )
    loaders = [
        MemoryLoader(part, data.mean, data.std, job.search.batch_size, seed, purpose)
        for part, purpose in ((weight, "search weights"), (held, "search alphas"))
    ]
    state = start_search(space, job.search, seed, CPU)
    if variant.shortcut_scale is not None:
        scale_shortcuts(state.supernet, variant.shortcut_scale)
    table = noisy_table(space, seed=0)  # latency has no part in a warm-up
    goal = LatencyGoal(table, table.range_ms()[1], CPU)
    began = time.process_time()
    epochs = search_epochs(state, SearchData(*loaders), goal, job.search, seed, SingleProcess())
    top1 = [round(100 * report.top1, 1) for report in islice(epochs, job.search.warmup_epochs)]
    return {
        "what": f"ops begin {name}: top-1 of sampled paths, %",
        "seed": seed,
        "by epoch": top1,
        "images an epoch": len(weight.labels),
        "batch": job.search.batch_size,
        "CPU s": round(time.process_time() - began),
        "device": line("", [0.0])["device"],
        "commit": commit(),
    }


def main() -> None:
    """Warm up the supernets that are missing and write their lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="supernets per variant")
    parser.add_argument("--processes", type=int, default=2, help="supernets at a time")
    parser.add_argument("--store", default="~/proxyless", help="where rendered images are kept")
    options = parser.parse_args()
    file = results_file("op_starts")
    texts = file.read_text().splitlines() if file.exists() else []
    done = {(item["what"], item["seed"]) for item in map(json.loads, texts)}
    jobs = [
        (name, seed, options.store)
        for seed in range(options.seeds)
        for name in VARIANTS
        if (f"ops begin {name}: top-1 of sampled paths, %", seed) not in done
    ]
    for result in as_they_come(learnt, jobs, options.processes):
        with file.open("a") as out:
            out.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
