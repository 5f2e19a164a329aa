"""Make the tabular benchmark: train every network of a small space alone, and time it.

Run `python tests/benchmarks/ground_truth.py` (`make ground-truth`) on a quiet machine. It measures
latencies on two targets and sets the budgets, then trains the networks from some seeds, one thread
each, two at a time. A run that was stopped continues where it was. The results are

    tests/benchmarks/ground_truth/v<VERSION>.parquet         a row per network and seed
    tests/benchmarks/ground_truth/v<VERSION>-<target>.json   the latency table of the space
    tests/benchmarks/ground_truth/v<VERSION>-latency.json    budgets, and every network measured

Columns of the rows: path, seed, top1 (percent of 10,000 test images), loss, macs, params, cpu_ms,
mobile_ms (whole networks, interleaved, less the call overhead, medians), checksums of the images,
digest of images, space and recipe.
Both targets are measured on one host, whose CPU stands in for a phone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from cluster.hardware import TARGETS, Target
from cluster.storage import Storage
from nas_core.latency import LatencyTable
from nas_core.settings import MeasureSettings
from tests.benchmarks import tabular
from tests.benchmarks.lines import TORCH, as_they_come, commit, keep, line
from tests.benchmarks.truth import Signal, signal, signal_near, truth_of

Job = tuple[tabular.Path_, int]
BEST = 20
"""Number of networks within each budget that are trained from more seeds."""
WORK = tabular.FOLDER / "work"
"""Folder of an unfinished run; not committed."""


def work(ending: str) -> Path:
    """Path of a file of the unfinished run."""
    return WORK / tabular.place(ending).name


def train_one(path: tabular.Path_, seed: int) -> dict[str, Any]:
    """Train one network from one seed; return its row."""
    import torch

    torch.set_num_threads(1)
    began = time.perf_counter()
    result = tabular.trained_alone(path, seed)
    network = tabular.network_of(path)
    return {
        "path": tabular.name_of(path),
        "seed": seed,
        "top1": round(100 * result.top1, 3),
        "loss": round(result.loss, 5),
        "macs": network.macs(),
        "params": network.num_params(),
        "seconds": round(time.perf_counter() - began, 1),
        "digest": tabular.digest(),
        "torch": TORCH,
        "commit": commit(),
    }


def kept() -> list[dict[str, Any]]:
    """Rows stored so far."""
    file = work(".jsonl")
    rows = [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []
    return [row for row in rows if row["digest"] == tabular.digest()]


def train_missing(jobs: Iterable[Job], processes: int) -> None:
    """Train the networks that have no stored row."""
    done = {(row["path"], row["seed"]) for row in kept()}
    missing = [job for job in jobs if (tabular.name_of(job[0]), job[1]) not in done]
    WORK.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(as_they_come(train_one, missing, processes), start=1):
        with work(".jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if number % 20 == 0:
            print(f"{number} of {len(missing)} trainings", file=sys.stderr, flush=True)


def targets() -> dict[str, Target]:
    """Targets as they are measured here, with this host in place of the phone."""
    from dataclasses import replace

    phone = TARGETS["mobile"].on_host()
    result = {"cpu": TARGETS["cpu"], "mobile": phone}
    return {name: replace(target, batch_size=tabular.BATCH) for name, target in result.items()}


def measure(target: Target) -> tuple[LatencyTable, list[float]]:
    """Latency table of the space, and latency of every network in milliseconds."""
    from cluster.connect import connect
    from cluster.placement import cores_reserved, node_for, nodes
    from orchestration.latency.build_table import measure_table
    from orchestration.programs.compile_workers import compile_workers_running, lower
    from orchestration.programs.timing_workers import timed

    settings = MeasureSettings()
    with tempfile.TemporaryDirectory() as folder, connect():
        node = node_for(target, nodes())
        with compile_workers_running([node]):
            store, space = Storage(folder), tabular.SPACE
            table = measure_table(space, target, settings, store, "table", log=_say)
            networks = [tabular.network_of(path) for path in tabular.all_paths()]
            programs = lower(space, target, [*networks, None])
            with cores_reserved(node, _say):
                *timings, empty = timed(programs, target, settings, settings.rounds, node)
    return table, [timing.without(empty.median_ms).median_ms for timing in timings]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measured() -> dict[str, Any]:
    """Latencies of all networks, and budgets, by target. Measured unless they are stored."""
    file = work("-latency.json")
    if not file.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        result = {name: _measure_target(name, target) for name, target in targets().items()}
        file.write_text(json.dumps(result, indent=1) + "\n")
    return dict(json.loads(file.read_text()))


def _measure_target(name: str, target: Target) -> dict[str, Any]:
    table, times_ms = measure(target)
    work(f"-{name}.json").write_text(json.dumps(table.to_dict(), indent=1) + "\n")
    by_table = [table.latency_ms(tabular.network_of(path)) for path in tabular.all_paths()]
    budgets = quantiles(by_table, tabular.BUDGET_SHARES)
    return {
        "budgets_ms": [float(f"{budget:.3g}") for budget in budgets],
        "table_ms": dict(zip(tabular.names(), by_table, strict=True)),
        "measured_ms": dict(zip(tabular.names(), times_ms, strict=True)),
        "digest": tabular.digest(),
        "device": line("", [0.0])["device"],
        "commit": commit(),
    }


def quantiles(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    """Quantiles of the values at these shares, in the order of the shares."""
    ordered = sorted(values)
    return [ordered[round(share * (len(ordered) - 1))] for share in shares]


def best_within(rows: Sequence[dict[str, Any]], latency: dict[str, Any]) -> list[str]:
    """Names of the best networks within each budget of each target, by the mean of their seeds."""
    means: dict[str, float] = {}
    for name in tabular.names():
        means[name] = fmean(
            row["top1"] for row in rows if row["path"] == name and row["seed"] in tabular.SEEDS
        )
    chosen: dict[str, None] = {}
    for result in latency.values():
        for budget_ms in result["budgets_ms"]:
            within = [name for name in tabular.names() if result["table_ms"][name] <= budget_ms]
            chosen |= dict.fromkeys(sorted(within, key=means.__getitem__)[-BEST:])
    return list(chosen)


def write(rows: Sequence[dict[str, Any]], latency: dict[str, Any]) -> None:
    """Write the table of networks with their latencies, and the files that it was made with."""
    import pandas

    for ending in ["-latency.json", *(f"-{target}.json" for target in latency)]:
        shutil.copyfile(work(ending), tabular.place(ending))
    frame = pandas.DataFrame(rows)
    frame["train_checksum"], frame["test_checksum"] = tabular.checksums()
    for name, result in latency.items():
        frame[f"{name}_ms"] = frame["path"].map(result["measured_ms"])
    frame.sort_values(["path", "seed"]).to_parquet(tabular.place(".parquet"), index=False)


def signals(latency: dict[str, Any]) -> list[dict[str, object]]:
    """A line per target and budget: spread across networks of equal latency and across seeds."""
    result: list[dict[str, object]] = []
    for target, facts in latency.items():
        truth = truth_of(target).first(len(tabular.SEEDS))
        result.append(_signal_line(f"signal at equal latency, {target}", signal(truth)))
        for budget_ms in facts["budgets_ms"]:
            near = signal_near(truth, budget_ms)
            within = {"networks": int(truth.near(budget_ms).sum())}
            ranks = {"rank ceiling": round(truth.rank_ceiling(budget_ms), 4)}
            what = f"signal at 0.9 to 1.0 of {budget_ms:g} ms, {target}"
            result.append({**_signal_line(what, near), **within, **ranks})
    return result


def _signal_line(what: str, found: Signal) -> dict[str, object]:
    return {
        "what": what,
        "points across networks": round(found.networks, 3),
        "points across seeds": round(found.seeds, 3),
        "ratio": round(found.ratio, 2),
        "digest": tabular.digest(),
        "commit": commit(),
    }


def main() -> None:
    """Measure and train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time")
    options = parser.parse_args()
    latency, paths = measured(), tabular.all_paths()
    train_missing([(path, seed) for seed in tabular.SEEDS for path in paths], options.processes)
    chosen = set(best_within(kept(), latency))
    best = [path for path in paths if tabular.name_of(path) in chosen]
    train_missing([(p, seed) for seed in tabular.MORE_SEEDS for p in best], options.processes)
    write(kept(), latency)
    keep("ground_truth", signals(latency))


if __name__ == "__main__":
    main()
