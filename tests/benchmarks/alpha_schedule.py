"""Learning rate, hold and ramp of the architecture parameters in a short search.

Run `python tests/benchmarks/alpha_schedule.py` after `glyph_networks.py`, whose images, space and
recipe it uses. From each seed one supernet is warmed up, and every variant below searches on from
there (`two_path`, objective `learnt`). Latency is multiply-accumulates, in milliseconds at
1 GMAC/s, so that the figures do not depend on the machine. The derived network is trained alone
from two seeds. For each variant, the results over the seeds are: accuracy on the 6,000 test images,
final expected latency relative to the budget, share of the budget that the network uses, and
entropy of the op probabilities.

Random networks that use 0.9 to 1.0 of the budget, trained alone in the same way, are the control.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch

from nas_core.architecture import Architecture, count_macs
from nas_core.batch import SearchData
from nas_core.latency import LatencyEntry, LatencyTable, OpSignature, head_part, op_signatures
from nas_core.network import Head, Stem
from nas_core.objective import LatencyGoal
from nas_core.ops import build_op
from nas_core.randomness import generator
from nas_core.sampling_strategies import random_within
from nas_core.search import choose, search_epochs, start_search
from nas_core.search_settings import SearchSettings
from nas_core.shapes import OpShape
from nas_core.train import mean_entropy
from nas_core.workers import SingleProcess
from orchestration.data.loading import split_classes
from tests.benchmarks import glyph_networks as alone
from tests.benchmarks import supernet_ranking
from tests.benchmarks.lines import keep, line, results_file

COMMON = SearchSettings(warmup_epochs=16, warmup_lr=0.05, epochs=12, batch_size=32, alpha_every=2)
VARIANTS = {
    "rate by the number of updates, one epoch held": {},
    "the same, a quarter held": {"hold_epochs": 3},
    "the same, ramp over a quarter": {"alpha_ramp": 0.25},
    "the same, a quarter held, then a ramp over a quarter": {"hold_epochs": 3, "alpha_ramp": 0.25},
    "the published rate, 1e-3, one epoch held": {"alpha_lr": 1e-3},
}
BUDGET_SHARE = 0.45
"""Position of the budget between the latency of the fastest network (0) and the slowest (1)."""
CONTROLS = 8
CPU = torch.device("cpu")


def macs_table() -> LatencyTable:
    """Latency table that counts multiply-accumulates, in milliseconds at 1 GMAC/s."""

    def macs(part: OpSignature) -> int:
        if part.op == "stem":
            return count_macs(lambda: Stem(alone.SPACE), part.in_channels, part.resolution)
        if part == head_part(alone.SPACE):
            return count_macs(lambda: Head(alone.SPACE), part.in_channels, part.resolution)
        shape = OpShape(part.in_channels, part.out_channels, part.stride)
        return count_macs(lambda: build_op(part.op, shape), part.in_channels, part.resolution)

    rows = [(part, macs(part) / 1e6) for part in op_signatures(alone.SPACE)]
    return LatencyTable(
        target="macs",
        hardware="multiply-accumulates",
        runtime="none",
        runtime_version="",
        space=alone.SPACE,
        rows=tuple(
            LatencyEntry(part=part, median_ms=ms, p10_ms=ms, p90_ms=ms, spread=0.0, count=1)
            for part, ms in rows
        ),
    )


def goal() -> LatencyGoal:
    """The budget of all searches."""
    table = macs_table()
    fastest, slowest = table.range_ms()
    return LatencyGoal(table, fastest + BUDGET_SHARE * (slowest - fastest), CPU)


def searches(seed: int) -> list[dict[str, Any]]:
    """All variants from the warm-up of one seed."""
    torch.set_num_threads(1)
    data = supernet_ranking.dataset()
    held_out, weight = split_classes(
        data.train, supernet_ranking.ARCHITECTURE_SHARE, 0, "architecture part"
    )
    parts = SearchData(
        weight=supernet_ranking.part_loader(weight, data, seed, "weights"),
        architecture=supernet_ranking.part_loader(held_out, data, seed, "architecture"),
    )
    warm = start_search(alone.SPACE, COMMON, seed, CPU)
    for _ in islice(
        search_epochs(warm, parts, goal(), COMMON, seed, SingleProcess()), COMMON.warmup_epochs
    ):
        pass
    return [_searched(copy.deepcopy(warm), parts, name, seed) for name in VARIANTS]


def _searched(state: Any, parts: SearchData, name: str, seed: int) -> dict[str, Any]:
    values: dict[str, Any] = VARIANTS[name]
    settings, aim = replace(COMMON, **values), goal()
    for _ in search_epochs(state, parts, aim, settings, seed, SingleProcess()):
        pass
    result = choose(state, aim.table, aim.budget_ms, settings)
    probs = state.supernet.probs()
    return {
        "variant": name,
        "seed": seed,
        "path": result.path(),
        "expected / budget": float(aim.expected_ms(probs)) / aim.budget_ms,
        "network / budget": aim.path_ms(result.path()) / aim.budget_ms,
        "entropy": mean_entropy(probs),
    }


def controls() -> list[alone.Path_]:
    """Different random networks that use 0.9 to 1.0 of the budget."""
    aim, result = goal(), dict[alone.Path_, None]()
    draw = 0
    while len(result) < CONTROLS:
        path = random_within(aim, generator(0, "control", draw))
        if aim.path_ms(path) >= 0.9 * aim.budget_ms:
            result[tuple(path)] = None
        draw += 1
    return list(result)


def accuracies(paths: Sequence[alone.Path_], processes: int) -> dict[alone.Path_, float]:
    """Top-1 of each network trained alone, percent, mean of two seeds. Reuses stored trainings."""
    done, wanted = alone.kept(), [(path, seed) for path in paths for seed in range(alone.SEEDS)]
    missing = [training for training in dict.fromkeys(wanted) if training not in done]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for result in pool.map(alone.train_alone, *zip(*missing, strict=True)) if missing else ():
            with results_file("glyph_networks").open("a") as file:
                file.write(json.dumps(result) + "\n")
    done = alone.kept()
    return {
        path: 100 * mean(done[path, seed]["top1"] for seed in range(alone.SEEDS)) for path in paths
    }


def lines(runs: Sequence[dict[str, Any]], processes: int) -> Iterator[dict[str, object]]:
    """Result lines of every variant over the seeds, and of the random networks."""
    random = controls()
    top1 = accuracies([*random, *(tuple(run["path"]) for run in runs)], processes)
    for name in VARIANTS:
        mine = [run for run in runs if run["variant"] == name]
        yield from _of_variant(name, mine, [top1[tuple(run["path"])] for run in mine])
    yield {**line("random networks: top-1 alone, %", [top1[path] for path in random])}


def _of_variant(
    name: str, runs: Sequence[dict[str, Any]], top1: list[float]
) -> Iterator[dict[str, object]]:
    yield {**line(f"{name}: top-1 alone, %", top1), "mean": mean(top1), "values": top1}
    for what in ("expected / budget", "network / budget", "entropy"):
        values = [run[what] for run in runs]
        yield {**line(f"{name}: {what}", values), "mean": mean(values)}


def main() -> None:
    """Run the searches, train the derived networks, write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4, help="warm-ups")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        runs = [run for result in pool.map(searches, range(options.seeds)) for run in result]
    for run in runs:
        network = Architecture.from_path(alone.SPACE, run["path"])
        print(json.dumps({**run, "ops": network.ops}), file=sys.stderr)
    keep("alpha_schedule", list(lines(runs, options.processes)))


if __name__ == "__main__":
    main()
