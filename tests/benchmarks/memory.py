"""Peak memory of a search step against a training step of the derived network.

Run `python tests/benchmarks/memory.py`. It prints one JSON line per measurement and keeps them in
`results/`. What is measured, on the published space at 224 pixels:

- a plain training step of a network;
- a weight step of the supernet on the path that is this same network;
- updates in which this path is active: two-path (each site tries one other op beside it), full-path
  (all other ops, one at a time) and REINFORCE (of ten networks);
- a weight step and an alpha step of `darts`, which run the softmax mixture of all candidates of
  every site: what one path at a time saves.

A figure is the peak of the resident memory during one step, over the level right before it, when
weights and optimizer state exist and no gradient does (Linux: VmHWM, reset through `clear_refs`,
and VmRSS). So weights and momentum are not in it; they have lines of their own. Each figure comes
from a process of its own, after one step that is not counted. glibc is told to give every block
above 64 kB back at once: else what it keeps from the step before would hide a part of the peak.
MB are 10**6 bytes. On a GPU, where gpu.py takes these steps from here, it is the peak of what torch
has allocated there, in one process.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))  # the benchmark runs in a checkout, installed or not

import torch

from nas_core import published
from nas_core.alpha_step import alpha_step
from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.gates import uniform_path
from nas_core.objective import LatencyGoal
from nas_core.published import pixel1
from nas_core.search import start_search, weight_step
from nas_core.search_settings import SearchSettings
from nas_core.search_state import Search, SearchState
from nas_core.settings import RetrainSettings
from nas_core.space import proxyless_imagenet
from nas_core.train import start_training, train_step
from nas_core.train_step import Trainer
from nas_core.workers import SingleProcess
from tests.benchmarks.lines import keep, line

Step = Callable[[Batch], object]

SPACE = proxyless_imagenet()
DEVICE = torch.device("cpu")
PLAIN, WEIGHT = "plain training step", "weight step on its path"
UPDATES = {
    "two_path": "two-path alpha step on its path",
    "full_path": "full-path alpha step on its path",
    "reinforce": "REINFORCE update of ten networks",
}
DARTS_WEIGHT, DARTS_ALPHA = "weight step of darts", "alpha step of darts"
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait do not take the core of others
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "0",
}


# One measurement, in a process of its own


def path_named(network: str) -> list[int]:
    """Path of 'proxyless_mobile', or of 'random N', drawn uniformly with seed N."""
    if network == "proxyless_mobile":
        return published.architecture(network).path()
    rng = torch.Generator().manual_seed(int(network.removeprefix("random ")))
    return uniform_path([len(site.ops) for site in SPACE.sites], rng)


def images(batch: int, size: int) -> Batch:
    pixels = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % SPACE.classes
    return Batch(pixels.to(DEVICE), labels.to(DEVICE), batch)


def plain(path: list[int]) -> tuple[Step, torch.optim.Optimizer]:
    settings = RetrainSettings()
    state = start_training(Architecture.from_path(SPACE, path), settings, 0, DEVICE)
    trainer = Trainer.of(state.optimizer, state.scaler, settings, SingleProcess())
    return (lambda batch: train_step(state, batch, trainer, 0.05, 0)), state.optimizer


def supernet() -> SearchState:
    """Search state in which every op of the supernet has momentum."""
    state = start_search(SPACE, SearchSettings(), 0, DEVICE)
    for choice in range(max(state.supernet.choices())):
        path = [min(choice, k - 1) for k in state.supernet.choices()]
        weight_step(state, images(2, 64), path, trainer_of(state), 0.05)
    return state


def trainer_of(state: SearchState) -> Trainer:
    return Trainer.of(state.weight_optimizer, state.scaler, SearchSettings(), SingleProcess())


def weight(path: list[int]) -> tuple[Step, torch.optim.Optimizer]:
    state = supernet()
    trainer = trainer_of(state)
    return (lambda batch: weight_step(state, batch, path, trainer, 0.05)), state.weight_optimizer


def update(strategy: Any) -> Callable[[list[int]], tuple[Step, torch.optim.Optimizer]]:
    """Maker of architecture updates with alphas such that the path is always sampled and active."""

    def make(path: list[int]) -> tuple[Step, torch.optim.Optimizer]:
        state = supernet()
        for choice, values in zip(path, state.supernet.alphas(), strict=True):
            values.data[choice] = 20.0
        goal = LatencyGoal(pixel1.table(SPACE), 85.0, DEVICE)
        data: Any = SimpleNamespace(weight=SimpleNamespace(steps=1000))
        search = Search(state, data, goal, SearchSettings(strategy=strategy), 0, SingleProcess())
        return (lambda batch: alpha_step(search, batch)), state.weight_optimizer

    return make


def darts_weight(_path: list[int]) -> tuple[Step, torch.optim.Optimizer]:
    state = supernet()
    trainer = trainer_of(state)
    return (
        lambda batch: weight_step(state, batch, state.supernet.probs(), trainer, 0.05)
    ), state.weight_optimizer


KINDS = {
    PLAIN: plain,
    WEIGHT: weight,
    **{what: update(strategy) for strategy, what in UPDATES.items()},
    DARTS_WEIGHT: darts_weight,
    DARTS_ALPHA: update("darts"),
}
OF_ONE_PATH = [PLAIN, WEIGHT, *UPDATES.values()]
DARTS = [DARTS_WEIGHT, DARTS_ALPHA]


def status_mb(field: str) -> float:
    """Field of /proc/self/status in MB: VmRSS or VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


def level_mb() -> float:
    """Memory in use now, MB; resets the peak to it."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    level = status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again at VmRSS
    return level


def peak_mb() -> float:
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return status_mb("VmHWM")


def measure(kind: str, network: str, batch: int) -> dict[str, float]:
    """Peak memory of one step above the level before it, and memory of weights and momentum."""
    step, optimizer = KINDS[kind](path_named(network))
    data = images(batch, SPACE.resolution)
    step(data)
    optimizer.zero_grad(set_to_none=True)
    gc.collect()
    level = level_mb()
    step(data)
    peak = peak_mb()
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    momentum = [optimizer.state[p]["momentum_buffer"] for p in weights]
    held = sum(t.numel() * t.element_size() for t in [*weights, *momentum])
    return {"peak_mb": peak - level, "held_mb": held / 1e6}


# All measurements


def in_fresh_process(kind: str, network: str, options: argparse.Namespace) -> dict[str, float]:
    words = [sys.executable, __file__, "--kind", kind, "--network", network]
    words += ["--batch", str(options.batch), "--threads", str(options.threads)]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    print(f"{kind}, {network}: {done.stdout.strip()}", file=sys.stderr)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def lines(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Result lines of all kinds of steps, measured in rounds so that a disturbance affects all."""
    networks = ["proxyless_mobile", *(f"random {n}" for n in range(1, options.networks + 1))]
    wanted = [(kind, network) for network in networks for kind in OF_ONE_PATH]
    wanted += [(kind, networks[0]) for kind in DARTS]
    peaks: dict[tuple[str, str], list[float]] = {case: [] for case in wanted}
    held: dict[str, float] = {}
    for _ in range(options.repeats):
        for kind, network in wanted:
            result = in_fresh_process(kind, network, options)
            peaks[kind, network].append(result["peak_mb"])
            held[network if kind == PLAIN else "the supernet"] = result["held_mb"]
    for (kind, network), values in peaks.items():
        of = "" if kind in DARTS else f", {network}"
        yield line(f"{kind}{of}: peak over weights and momentum, MB", values)
    for owner, value in held.items():
        yield line(f"weights and momentum of {owner}, MB", [value])
    for kind in KINDS:
        if kind != PLAIN:
            yield ratio(kind, peaks, networks[:1] if kind in DARTS else networks)


def ratio(
    kind: str, peaks: dict[tuple[str, str], list[float]], networks: list[str]
) -> dict[str, object]:
    """Ratio of the peaks of one kind to those of the plain step of the same networks."""
    pairs = [
        (mine, plain)
        for network in networks
        for mine, plain in zip(peaks[kind, network], peaks[PLAIN, network], strict=True)
    ]
    what = f"{kind} / {PLAIN} of the same network, {len(networks)} networks: ratio of peaks"
    return line(what, [mine / plain for mine, plain in pairs])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--networks", type=int, default=3, help="random networks beside Mobile")
    parser.add_argument("--repeats", type=int, default=3, help="processes per figure")
    parser.add_argument("--kind", choices=KINDS, help="measure this one, here")
    parser.add_argument(
        "--network", default="proxyless_mobile", help="network whose path is measured, with --kind"
    )
    options = parser.parse_args()
    if options.kind:
        torch.set_num_threads(options.threads)
        print(json.dumps(measure(options.kind, options.network, options.batch)))
        return
    keep("memory", [{**result, "batch": options.batch} for result in lines(options)])


if __name__ == "__main__":
    main()
