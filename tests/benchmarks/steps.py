"""Speed of the steps of a search against a plain training step, in one process.

Run `python tests/benchmarks/steps.py`. It prints one JSON line per figure and writes them to
`results/`. Timed on the published space at 224 pixels, batch 8, two threads:

- a plain training step of ten random networks;
- a weight step of the supernet on the paths of these same networks;
- architecture updates of `two_path`, `full_path` and `reinforce` (ten networks), at the uniform
  probabilities that a search begins with, and the latency objective `learnt` on the Pixel 1 table.

Measurements are interleaved: for each network, one step of each kind, in rounds; the first round is
not counted. Times are CPU seconds on a CPU, and wall-clock seconds with synchronization on a GPU.
On a CPU the peak resident memory of a process that only searches is reported too. Ratios are of the
means of a round; the spread is over rounds. Waiting threads sleep (OMP_WAIT_POLICY), so that
waiting takes no CPU time.

On a GPU, `--device cuda --batch 256 --precision bfloat16` adds images per second, peak memory, the
share of the speed that the GPU reaches in a large matrix product, and the time that the published
schedule on ImageNet (160 epochs of search, 300 of training) would take at these speeds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))  # the benchmark runs in a checkout, installed or not
if os.environ.get("OMP_WAIT_POLICY") != "PASSIVE":  # read when torch is loaded
    os.execve(  # this same program
        sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    )

import torch

from nas_core.alpha_step import alpha_step
from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.gates import uniform_path
from nas_core.objective import LatencyGoal
from nas_core.published import pixel1
from nas_core.search import start_search, weight_step
from nas_core.search_settings import SearchSettings
from nas_core.search_state import Search
from nas_core.settings import RetrainSettings
from nas_core.space import proxyless_imagenet
from nas_core.train import start_training, train_step
from nas_core.train_step import Trainer
from nas_core.workers import SingleProcess
from tests.benchmarks.lines import keep, line
from tests.benchmarks.memory import status_mb

SPACE = proxyless_imagenet()
BUDGET_MS = 85.0
PLAIN, WEIGHT = "plain training step", "weight step"
UPDATES = {
    "two_path": "two-path alpha step",
    "full_path": "full-path alpha step",
    "reinforce": "REINFORCE update of ten networks",
}
PEAK = "peak memory of a process of weight steps and"
IMAGENET_STEPS = -(-(1_281_167 - 50_000) // 256)
"""Weight steps of an epoch of the published schedule, batch 256."""
TRAINING_STEPS = -(-1_281_167 // 256)
"""Steps of an epoch of the published training."""

Step = Callable[[int], object]


class Bench:
    """Networks, a supernet and a batch on one device."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.precision: Any = options.precision
        size = (options.batch, 3, options.resolution, options.resolution)
        images = torch.randn(size).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(options.batch) % SPACE.classes
        self.batch = Batch(images.to(self.device), labels.to(self.device), options.batch)
        rng = torch.Generator().manual_seed(0)
        choices = [len(site.ops) for site in SPACE.sites]
        self.paths = [uniform_path(choices, rng) for _ in range(options.networks)]
        self.search = start_search(SPACE, self.settings(), 0, self.device)
        self.search.supernet.train()
        self.goal = LatencyGoal(pixel1.table(SPACE), BUDGET_MS, self.device)

    def steps(self) -> dict[str, Step]:
        updates = {what: self.update(strategy) for strategy, what in UPDATES.items()}
        return {PLAIN: self.plain(), WEIGHT: self.weight(), **updates}

    def weight(self) -> Step:
        state = self.search
        trainer = Trainer.of(state.weight_optimizer, state.scaler, self.settings(), SingleProcess())
        return lambda i: weight_step(state, self.batch, self.paths[i], trainer, 0.05)

    def plain(self) -> Step:
        def step(i: int) -> None:
            train_step(states[i], self.batch, trainers[i], 0.05, 0)

        architectures = [Architecture.from_path(SPACE, path) for path in self.paths]
        settings = RetrainSettings(precision=self.precision)
        states = [start_training(a, settings, 0, self.device) for a in architectures]
        trainers = [Trainer.of(s.optimizer, s.scaler, settings, SingleProcess()) for s in states]
        for state in states:
            state.network.train()
        return step

    def update(self, strategy: Any) -> Step:
        data: Any = SimpleNamespace(weight=SimpleNamespace(steps=IMAGENET_STEPS))
        settings = self.settings(strategy=strategy)
        search = Search(self.search, data, self.goal, settings, 0, SingleProcess())
        return lambda _i: alpha_step(search, self.batch)

    def settings(self, **changes: Any) -> SearchSettings:
        return SearchSettings(precision=self.precision, **changes)

    def seconds(self, step: Step, i: int) -> float:
        """Seconds of a step: CPU time on a CPU, wall-clock time on a GPU."""
        if self.device.type != "cuda":
            began = time.process_time()
            step(i)
            return time.process_time() - began
        torch.cuda.synchronize()
        began = time.perf_counter()
        step(i)
        torch.cuda.synchronize()
        return time.perf_counter() - began


def rounds(bench: Bench, count: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Mean seconds of every kind of step in each round; peak memory in MB (GPU only)."""
    steps = bench.steps()
    means: dict[str, list[float]] = {what: [] for what in steps}
    peaks: dict[str, float] = {}
    for number in range(count + 1):
        seen: dict[str, list[float]] = {what: [] for what in steps}
        for i in range(len(bench.paths)):
            for what, step in steps.items():
                if bench.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                seen[what].append(bench.seconds(step, i))
                if bench.device.type == "cuda":
                    peak = torch.cuda.max_memory_allocated() / 1e6
                    peaks[what] = max(peaks.get(what, 0.0), peak)
        if number:  # the first one allocates momentum and warms caches up
            for what, values in seen.items():
                means[what].append(mean(values))
    return means, peaks


def lines(
    means: dict[str, list[float]], peaks: dict[str, float], options: argparse.Namespace
) -> Iterator[dict[str, object]]:
    unit = "s of the device" if options.device == "cuda" else "CPU s"
    for what, values in means.items():
        yield line(f"{what}, {unit}", values)
    for what in list(means)[1:]:
        over = PLAIN if what == WEIGHT else WEIGHT
        pairs = zip(means[what], means[over], strict=True)
        yield line(f"{what} / {over}", [a / b for a, b in pairs])
    for what, peak in peaks.items():
        yield line(f"{what}: peak memory allocated, MB", [peak])
    if options.device == "cuda":
        yield from gpu_lines(means, options)


def gpu_lines(
    means: dict[str, list[float]], options: argparse.Namespace
) -> Iterator[dict[str, object]]:
    """Result lines of a GPU: images per second, share of the peak, hours of the schedule."""
    yield line("weight step, images per second", [options.batch / s for s in means[WEIGHT]])
    yield line("plain training step, images per second", [options.batch / s for s in means[PLAIN]])
    peak, work = product_flops(), step_flops(options)
    yield line("large bf16 matrix product, TFLOP/s", [peak / 1e12])
    for what in (PLAIN, WEIGHT):
        shares = [100 * work / s / peak for s in means[what]]
        yield line(f"{what}: share of the large matrix product, %", shares)
    of_an_image = 256 / options.batch / 3600
    rows = zip(means[WEIGHT], means[UPDATES["two_path"]], means[PLAIN], strict=True)
    search, training = zip(
        *(
            (
                IMAGENET_STEPS * (160 * weight + 119 / 5 * update) * of_an_image,
                300 * TRAINING_STEPS * plain * of_an_image,
            )
            for weight, update, plain in rows
        ),
        strict=True,
    )
    yield line("published two-path schedule of 160 epochs, hours of this GPU", list(search))
    yield line("published training of 300 epochs, hours of this GPU", list(training))


def step_flops(options: argparse.Namespace) -> float:
    """FLOPs of a training step, mean over the random networks.

    Counts two per multiply-accumulate, and the backward pass as twice the forward pass.
    """
    rng = torch.Generator().manual_seed(0)
    choices = [len(site.ops) for site in SPACE.sites]
    paths = [uniform_path(choices, rng) for _ in range(options.networks)]
    macs = mean(Architecture.from_path(SPACE, path).macs() for path in paths)
    images = float(options.batch)
    return 6.0 * macs * images * (float(options.resolution) / SPACE.resolution) ** 2


def product_flops() -> float:
    """FLOPs per second of a bf16 product of two 8192 x 8192 matrices."""
    size, times = 8192, 20
    one, other = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        one @ other
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        one @ other
    torch.cuda.synchronize()
    took_s = time.perf_counter() - began
    return 2.0 * size**3 * times / took_s


def search_a_little(options: argparse.Namespace) -> None:
    """Run weight steps and updates of one strategy; print the peak memory of the process, GB."""
    bench = Bench(options)
    weight, update = bench.weight(), bench.update(options.peak_of)
    for i in range(len(bench.paths)):
        weight(i)
        update(i)
    sys.stdout.write(f"{status_mb('VmHWM') / 1000}\n")  # ru_maxrss would include the parent's


def peak_gb(strategy: str) -> float:
    """Peak resident memory of a process that only searches, started like this one."""
    words = [sys.executable, *sys.argv, "--peak-of", strategy]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--resolution", type=int, default=224, help="pixels")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--networks", type=int, default=10, help="random networks")
    parser.add_argument("--rounds", type=int, default=3, help="counted passes over all networks")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--file", type=Path, help="result file, by default one in results/")
    parser.add_argument("--peak-of", choices=list(UPDATES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        search_a_little(options)
        return
    result = list(lines(*rounds(Bench(options), options.rounds), options))
    if options.device == "cpu":
        result += [line(f"{PEAK} {what}, GB", [peak_gb(name)]) for name, what in UPDATES.items()]
    facts = {"batch": options.batch, "precision": options.precision}
    keep("steps", [{**item, **facts} for item in result], options.file)


if __name__ == "__main__":
    main()
