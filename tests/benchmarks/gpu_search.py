"""Networks searched for an NVIDIA GPU on that GPU, against MobileNetV2, without Ray.

Run `python tests/benchmarks/gpu_search.py [JOB] [--set KEY=VALUE ...]` on a machine with a GPU; of
the project's requirements it needs torch, numpy, PyYAML and pydantic. JOB is a job file, by default
`jobs/search_gpu.yaml`. Images, space, search and retraining come from the job; its cases are
ignored. Instead, for every seed the space is searched for the GPU at `--budgets` of the reference
network's latency, and the reference network and MobileNetV2 in `--widths` are trained with the same
recipe. Images are kept on the GPU. All networks are timed interleaved in the end, together with
those of the file `--also` (one network per line), so that networks searched for other hardware get
a latency on this GPU.

It prints one JSON line per network and writes them to `results/` or to `--out`, beside the latency
table. `--device cpu` runs the same code on the CPU: it shows that the script works; its figures
mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.benchmarks import gpu

import torch  # isort: skip

from cluster.hardware import TARGETS, usable_cores
from cluster.runtimes.cuda_device import CudaDevice, Device, why_no_gpu
from cluster.runtimes.timing import Timing, time_calls
from cluster.runtimes.torch_cuda import TorchCuda
from cluster.storage import Storage
from nas_core.architecture import Architecture, Model
from nas_core.baselines.registry import for_space, model_from_dict
from nas_core.batch import SearchData
from nas_core.latency import LatencyTable
from nas_core.objective import LatencyGoal
from nas_core.search import choose, search_epochs, start_search
from nas_core.space import SearchSpace
from nas_core.train import (
    REFRESH_BATCHES,
    evaluate,
    refresh_statistics,
    start_training,
    train_to_the_end,
)
from nas_core.workers import SingleProcess
from orchestration import load_job
from orchestration.config.job import Job
from orchestration.data.dataset import Dataset, ImageSet
from orchestration.data.loader import MemoryLoader, evaluation_batches
from orchestration.data.loading import load_dataset, split_classes
from orchestration.data.transforms import Recipe, recipe_of
from tests.benchmarks import lines
from tests.benchmarks.gpu_table import Subject, all_compiled
from tests.benchmarks.host_device import HostDevice

Row = dict[str, Any]
Named = tuple[str, float | None, Model, Row]
"""Name, budget in ms, network, and seconds that finding it took."""
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.4)


@dataclass(frozen=True)
class Work:
    """Inputs that the processes of all seeds share."""

    job: Job
    place: str
    """Name of the torch device."""
    table: LatencyTable
    budgets: tuple[float, ...]
    """Budgets as shares of the reference network's latency."""
    widths: tuple[float, ...]
    """Width multipliers of MobileNetV2."""

    @property
    def space(self) -> SearchSpace:
        return self.table.space

    @property
    def reference_ms(self) -> float:
        assert self.table.reference_ms is not None, "the table was fitted"
        return self.table.reference_ms


class Bench:
    """Searches and trainings of one seed."""

    def __init__(self, work: Work, seed: int) -> None:
        torch.set_num_threads(1)
        self.work, self.job, self.seed = work, work.job, seed
        self.device = torch.device(work.place)
        self.data = dataset(work.job, seed)

    def rows(self, networks: Iterable[Named]) -> Iterator[Row]:
        """A result row per network, which is trained here."""
        for name, budget_ms, network, seconds in networks:
            began = self.clock()
            row = self.trained(network)
            yield {
                "what": name,
                "seed": self.seed,
                **row,
                "budget_ms": budget_ms,
                **seconds,
                "retrain_s": round(self.clock() - began, 2),
                "network": network.to_dict(),
            }

    def known(self) -> Iterator[Named]:
        """Networks to compare with: the reference network and MobileNetV2."""
        space = self.work.space
        yield "reference", None, Architecture.reference(space), {}
        for width in self.work.widths:
            name = f"mobilenet_v2_{width:g}"
            yield name, None, for_space(name, space), {}

    def searched(self) -> Iterator[Named]:
        """Networks searched for all budgets from one warm-up."""
        settings, table, began = self.job.search, self.work.table, self.clock()
        warm = start_search(self.work.space, settings, self.seed, self.device)
        data = self.search_data()
        anything = LatencyGoal(table, table.range_ms()[1], self.device)  # not asked in a warm-up
        epochs = search_epochs(warm, data, anything, settings, self.seed, SingleProcess())
        learnt = [report.top1 for report in islice(epochs, settings.warmup_epochs)]
        warmup_s = round(self.clock() - began, 2)
        for budget in self.work.budgets:
            began, state = self.clock(), copy.deepcopy(warm)
            budget_ms = budget * self.work.reference_ms
            if budget_ms < table.range_ms()[0]:
                gpu.log(f"no network within {budget:.0%} of the reference network's latency")
                continue
            goal = LatencyGoal(table, budget_ms, self.device)
            for _ in search_epochs(state, data, goal, settings, self.seed, SingleProcess()):
                pass
            result = choose(state, table, budget_ms, settings)
            seconds = {
                "table_ms": table.latency_ms(result),
                "expected_ms": float(goal.expected_ms(state.supernet.probs())),
                "supernet_top1": round(100 * learnt[-1], 2),
                "warmup_s": warmup_s,
                "search_s": round(self.clock() - began, 2),
            }
            yield f"searched, budget {budget:.0%}", budget_ms, result, seconds

    def search_data(self) -> SearchData:
        """Weight and architecture part of the training images, split as in a job."""
        share = self.job.search.architecture_share
        held, weight = split_classes(self.data.train, share, self.seed, "architecture split")
        size = self.job.search.batch_size
        recipe = recipe_of(self.job.data, is_retraining=False)
        return SearchData(
            self.loader(weight, size, "search weights", recipe),
            self.loader(held, size, "search alphas", recipe.for_test),
        )

    def loader(self, part: ImageSet, size: int, purpose: str, recipe: Recipe) -> MemoryLoader:
        held = ImageSet(part.images.to(self.device), part.labels.to(self.device))
        seed, device = self.seed, self.device
        return MemoryLoader.of(held, self.data, recipe, size, seed, purpose, device=device)

    def trained(self, network: Model) -> Row:
        """Train a network from scratch; return its accuracy."""
        settings = self.job.retrain
        assert settings is not None, "checked in main"
        state = start_training(network, settings, self.seed, self.device)
        recipe = recipe_of(self.job.data, is_retraining=True)
        loader = self.loader(self.data.train, settings.batch_size, "retraining", recipe)
        train_to_the_end(state, loader, settings, self.seed, SingleProcess())
        batches = loader.batches(settings.epochs * loader.steps)
        refresh_statistics(state.network, islice(batches, REFRESH_BATCHES))
        data = self.data
        test = evaluation_batches(data.test, data.mean, data.std, device=self.device)
        result = evaluate(state.network.eval(), test, SingleProcess())
        return {"top1": round(100 * result.top1, 3), "tested": result.count}

    def clock(self) -> float:
        """Clock in seconds, read after the GPU has finished all queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def of_seed(work: Work, seed: int, is_searched: bool) -> list[Row]:
    """Rows of one seed, for a process of its own.

    Networks this small leave most of a GPU idle, so several processes share it.
    """
    bench = Bench(work, seed)
    return list(bench.rows(bench.searched() if is_searched else bench.known()))


def dataset(job: Job, seed: int) -> Dataset:
    return load_dataset(job.data, seed, Storage(job.storage))


def table_of(space: SearchSpace, device: Device, options: argparse.Namespace) -> LatencyTable:
    """Measure the latency table as `gpu.py` does; keep its lines and file."""
    extent = gpu.Extent(space=space, rounds=options.rounds, checked=options.checked)
    precision = TARGETS["gpu"].precision
    result = list(gpu.Bench(extent, device, options.processes).table(precision, options.out))
    for item in result:
        if "median" in item and ":" in str(item["what"]):
            gpu.log(f"{item['what']} {item['median']}")
    file = options.out / gpu.file_name(f"gpu_table_{precision}", device)
    table = LatencyTable.from_dict(json.loads(file.read_text()))
    file.rename(options.out / gpu.file_name(f"gpu_search_{options.name}_table", device))
    return table


def timed(
    networks: Sequence[Model], space: SearchSpace, device: Device, options: argparse.Namespace
) -> list[Timing]:
    """Latency of every network, timed interleaved, less the time of an empty call."""
    runtime = TorchCuda(TARGETS["gpu"], device)
    subjects: list[Subject] = [*networks, None]
    programs = all_compiled(space, TARGETS["gpu"].batch_size, subjects, options.processes)
    calls = [runtime.load(code).prepared(torch.randn(shape)) for code, shape in programs]
    result = time_calls(
        calls, rounds=options.rounds, sample_ms=5.0, run_ms=runtime.run_ms, rest=runtime.rest
    )
    return [item.without(result[-1].median_ms) for item in result[:-1]]


def with_latency(rows: Sequence[Row], timings: dict[str, Timing]) -> list[Row]:
    result = []
    for row in rows:
        one = timings[model_from_dict(row["network"]).digest()]
        result.append({**row, "ms": round(one.median_ms, 5), "spread": round(one.spread, 4)})
    return result


def also(file: Path | None) -> list[Row]:
    """Rows of networks that are only timed."""
    if file is None:
        return []
    return [json.loads(text) for text in file.read_text().splitlines()]


def words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", nargs="?", type=Path, default=REPOSITORY / "jobs/search_gpu.yaml")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the job"
    )
    parser.add_argument("--budgets", nargs="*", type=float, default=[0.5, 0.75], metavar="SHARE")
    parser.add_argument(
        "--widths", nargs="*", type=float, default=WIDTHS, help="widths of MobileNetV2"
    )
    parser.add_argument("--also", type=Path, help="lines with a network each, to be timed too")
    parser.add_argument("--only-also", action="store_true", help="time them and no others")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=10, help="timing rounds")
    parser.add_argument("--checked", type=int, default=24, help="networks to test the table on")
    parser.add_argument("--processes", type=int, default=min(12, usable_cores()))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--commit", help="commit of these files, if git cannot tell")
    return parser.parse_args()


def searches(job: Job, device: Device, options: argparse.Namespace) -> list[Row]:
    """Measure the latency table, then search and train all seeds in processes."""
    data = dataset(job, job.all_seeds[0])  # rendered once and stored for the other processes
    space = job.space.build(len(data.classes), *data.shape[:2])
    gpu.log(f"{len(data.train)} images; table of {space.resolution} px")
    table = table_of(space, device, options)
    gpu.free()
    work = Work(job, device.torch_name, table, tuple(options.budgets), tuple(options.widths))
    result: list[Row] = []
    several = [(work, seed, is_searched) for seed in job.all_seeds for is_searched in (True, False)]
    for rows in lines.as_they_come(of_seed, several, min(options.processes, len(several))):
        result += rows
        with (options.out / f"gpu_search_{job.name}.part").open("a") as part:  # not yet timed
            part.writelines(json.dumps(row) + "\n" for row in rows)
        gpu.log(f"seed {rows[0]['seed']}: " + ", ".join(f"{r['what']} {r['top1']}" for r in rows))
    return result


def main() -> None:
    options = words()
    gpu.commit_is(options.commit)
    if options.device == "cuda" and (reason := why_no_gpu()):
        sys.exit(f"no GPU: {reason}; see --help for a run without one")
    device: Device = CudaDevice() if options.device == "cuda" else HostDevice()
    options.out.mkdir(parents=True, exist_ok=True)
    job = load_job(options.job, options.set)
    if job.retrain is None:
        sys.exit(f"{options.job}: no `retrain` section; networks are compared retrained")
    options.name = job.name
    rows = [] if options.only_also else searches(job, device, options)
    rows += also(options.also)
    networks = {model.digest(): model for model in (model_from_dict(r["network"]) for r in rows)}
    space = next(m for m in networks.values() if isinstance(m, Architecture)).space
    gpu.log(f"timing {len(networks)} networks")
    result = timed(list(networks.values()), space, device, options)
    rows = with_latency(rows, dict(zip(networks, result, strict=True)))
    facts: Row = {"torch": lines.TORCH, "commit": lines.commit(), "job": job.name}
    gpu.keep(f"gpu_search_{job.name}", rows, facts, device, options.out)


if __name__ == "__main__":
    main()
