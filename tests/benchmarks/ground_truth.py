"""Make the yardstick: every network trained alone from some seeds, and timed on two targets.

Run `python tests/benchmarks/ground_truth.py` (`make ground-truth`). Trainings run one thread each,
two at a time, and are kept as they come, so that a run that is stopped goes on. At the end stand

    tests/benchmarks/ground_truth/v<VERSION>.parquet      a row per network and seed
    tests/benchmarks/ground_truth/v<VERSION>-cpu.json     latency tables of the space
    tests/benchmarks/ground_truth/v<VERSION>-mobile.json

The rows: path, seed, top1 (10,000 test images), loss, macs, params, cpu_ms, mobile_ms (whole
networks, interleaved, call overhead taken off, medians), digest of images, space and recipe.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from cluster.hardware import TARGETS, Target  # noqa: E402
from cluster.storage import Storage  # noqa: E402
from nas_core.latency import LatencyTable  # noqa: E402
from nas_core.settings import MeasureSettings  # noqa: E402
from tests.benchmarks import yardstick  # noqa: E402
from tests.benchmarks.lines import TORCH, commit  # noqa: E402

FOLDER = Path(__file__).parent / "ground_truth"
SEEDS = (0, 1)
BATCH = 16
"""Images per call: at batch 1 many networks take under a tenth of a millisecond."""

Job = tuple[yardstick.Path_, int]


def place(ending: str) -> Path:
    """A file of this version."""
    return FOLDER / f"v{yardstick.VERSION}{ending}"


def train_one(path: yardstick.Path_, seed: int) -> dict[str, Any]:
    """Train one network from one seed; the row that is kept of it."""
    import torch

    torch.set_num_threads(1)
    began = time.perf_counter()
    found = yardstick.trained_alone(path, seed)
    network = yardstick.network_of(path)
    return {
        "path": "-".join(map(str, path)),
        "seed": seed,
        "top1": round(100 * found.top1, 3),
        "loss": round(found.loss, 5),
        "macs": network.macs(),
        "params": network.num_params(),
        "seconds": round(time.perf_counter() - began, 1),
        "digest": yardstick.digest(),
        "torch": TORCH,
        "commit": commit(),
    }


def kept() -> list[dict[str, Any]]:
    """Rows so far."""
    file = place(".jsonl")
    rows = [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []
    return [row for row in rows if row["digest"] == yardstick.digest()]


def train_missing(jobs: Iterable[Job], processes: int) -> None:
    """Train what is not kept yet."""
    done = {(row["path"], row["seed"]) for row in kept()}
    missing = [job for job in jobs if ("-".join(map(str, job[0])), job[1]) not in done]
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, fresh) as pool:
        runs = [pool.submit(train_one, *job) for job in missing]
        for number, run in enumerate(as_completed(runs), start=1):
            FOLDER.mkdir(exist_ok=True)
            with place(".jsonl").open("a") as file:
                file.write(json.dumps(run.result()) + "\n")
            if number % 20 == 0:
                print(f"{number} of {len(missing)} trainings", file=sys.stderr, flush=True)


def targets() -> dict[str, Target]:
    """As they are measured here."""
    from dataclasses import replace

    phone = TARGETS["mobile"].on_host()
    found = {"cpu": TARGETS["cpu"], "mobile": phone}
    return {name: replace(target, batch_size=BATCH) for name, target in found.items()}


def measure(target: Target) -> tuple[LatencyTable, list[float]]:
    """The latency table of the space, and the latency of every network, milliseconds."""
    from cluster.connect import connect
    from cluster.placement import cores_reserved, node_for, nodes
    from orchestration.compilers import compilers_running, lower
    from orchestration.measure import measure_table
    from orchestration.stopwatch import timed

    settings = MeasureSettings()
    with tempfile.TemporaryDirectory() as folder, connect():
        node = node_for(target, nodes())
        with compilers_running([node]):
            store, space = Storage(folder), yardstick.SPACE
            table = measure_table(space, target, settings, store, "table", say=_say)
            networks = [yardstick.network_of(path) for path in yardstick.all_paths()]
            programs = lower(space, target, [*networks, None])
            with cores_reserved(node, _say):
                *timings, empty = timed(programs, target, settings, settings.rounds, node)
    return table, [timing.without(empty.median_ms).median_ms for timing in timings]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write(rows: Sequence[dict[str, Any]]) -> None:
    """Measure, and write the table with its latencies."""
    import pandas

    names = ["-".join(map(str, path)) for path in yardstick.all_paths()]
    frame = pandas.DataFrame(rows)
    for name, target in targets().items():
        table, times_ms = measure(target)
        place(f"-{name}.json").write_text(json.dumps(table.to_dict(), indent=1) + "\n")
        frame[f"{name}_ms"] = frame["path"].map(dict(zip(names, times_ms, strict=True)))
    frame.sort_values(["path", "seed"]).to_parquet(place(".parquet"), index=False)


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time")
    options = parser.parse_args()
    jobs = [(path, seed) for seed in SEEDS for path in yardstick.all_paths()]
    train_missing(jobs, options.processes)
    write(kept())


if __name__ == "__main__":
    main()
