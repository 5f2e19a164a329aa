"""Speed-up from computing the weight gradient of wide depthwise kernels in columns on a CPU.

Run `python tests/benchmarks/depthwise.py`. One thread; each measurement is interleaved with the
same by torch's own convolution (see `nas_core/depthwise.py`). Measured are the weight gradient
alone at shapes of both spaces, with caches flushed before each, and the training step of ten random
networks of the published space (224 pixels, batch 8) and of `jobs/compare_mobilenet.yaml`
(48 pixels, batch 32). One JSON line per shape and per space: ratios of our time to torch's, with
their spread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))  # the benchmark runs in a checkout, installed or not

import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.depthwise import Depthwise
from nas_core.gates import uniform_path
from nas_core.settings import RetrainSettings
from nas_core.space import SearchSpace, proxyless_imagenet
from nas_core.train import start_training, train_step
from nas_core.train_step import Trainer
from nas_core.workers import SingleProcess
from orchestration import load_job
from tests.benchmarks.lines import as_they_come, keep, line

SHAPES = (
    *((96, 24, 5, 2, 32), (96, 24, 7, 2, 32), (144, 12, 5, 1, 32), (144, 12, 7, 1, 32)),
    *((288, 6, 5, 1, 32), (576, 3, 5, 1, 32), (576, 3, 7, 1, 32), (144, 56, 5, 1, 8)),
    *((144, 56, 7, 2, 8), (240, 28, 7, 1, 8), (480, 14, 5, 1, 8), (1152, 7, 7, 1, 8)),
)
"""Channels, pixels a side, kernel, stride, images."""
REPEATS = 15
NETWORKS = 10
SWEEP = 8_000_000
"""Values written between two measurements: more than the caches hold."""

Row = dict[str, object]


class Clock:
    """Timer of calls that flushes the caches before each."""

    def __init__(self) -> None:
        self._swept = torch.zeros(SWEEP)

    def ratio(self, ours: Callable[[], object], theirs: Callable[[], object]) -> float:
        """Time of one call of `ours` divided by that of one call of `theirs`."""
        seconds = []
        for call in (ours, theirs):
            self._swept.add_(1)
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
        return seconds[0] / seconds[1]


def _gradient(convolution: nn.Conv2d, x: Tensor) -> Callable[[], object]:
    """Function that computes the gradient of the weight; the input needs none."""
    y = convolution(x)
    grad = torch.randn_like(y)
    return lambda: torch.autograd.grad(y, convolution.weight, grad, retain_graph=True)


def shape_rows() -> list[Row]:
    """Result lines of the weight gradient at every shape."""
    torch.set_num_threads(1)
    clock, rows = Clock(), list[Row]()
    for channels, pixels, kernel, stride, images in SHAPES:
        x = torch.randn(images, channels, pixels, pixels).to(memory_format=torch.channels_last)
        plain = nn.Conv2d(
            channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
        )
        calls = (_gradient(Depthwise(channels, kernel, stride), x), _gradient(plain, x))
        ratios = [clock.ratio(*calls) for _ in range(REPEATS + 1)][1:]
        what = f"weight gradient, {images} x {channels} x {pixels} x {pixels}, {kernel=}, {stride=}"
        rows.append(line(f"{what}: ours / torch's", ratios))
    return rows


@contextmanager
def _as_torch_does() -> Iterator[None]:
    ours = Depthwise.forward
    Depthwise.forward = nn.Conv2d.forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        Depthwise.forward = ours  # type: ignore[method-assign]


def network_ratios(space: SearchSpace, images: int) -> Iterator[float]:
    """Median time ratio of the training step, for each of ten random networks."""
    clock, rng = Clock(), torch.Generator().manual_seed(0)
    choices = [len(site.ops) for site in space.sites]
    for _ in range(NETWORKS):
        step = _training(Architecture.from_path(space, uniform_path(choices, rng)), images)
        yield median([clock.ratio(step, lambda: _theirs(step)) for _ in range(8)][1:])  # noqa: B023


def _theirs(step: Callable[[], object]) -> None:
    with _as_torch_does():
        step()


def _training(network: Architecture, images: int) -> Callable[[], object]:
    settings, space = RetrainSettings(), network.space
    state = start_training(network, settings, 0, torch.device("cpu"))
    trainer = Trainer.of(state.optimizer, state.scaler, settings, SingleProcess())
    x = torch.randn(images, space.in_channels, space.resolution, space.resolution)
    labels = torch.randint(0, space.classes, (images,))
    batch = Batch(x.to(memory_format=torch.channels_last), labels, images)
    state.network.train()
    return lambda: train_step(state, batch, trainer, 0.05, 0)


def space_rows() -> list[Row]:
    """Result lines of the training step in both spaces."""
    torch.set_num_threads(1)
    job: Any = load_job(REPOSITORY / "jobs" / "compare_mobilenet.yaml", [])
    spaces = {
        "published space, 224 pixels, batch 8": (proxyless_imagenet(), 8),
        "jobs/compare_mobilenet.yaml, 48 pixels, batch 32": (job.space.build(40, 1, 48), 32),
    }
    return [
        line(f"training step, {name}: ours / torch's", list(network_ratios(*space)))
        for name, space in spaces.items()
    ]


def _of(part: str) -> list[Row]:
    return {"shapes": shape_rows, "spaces": space_rows}[part]()


if __name__ == "__main__":
    parts = as_they_come(_of, [("shapes",), ("spaces",)], processes=1)
    keep("depthwise", [row for rows in parts for row in rows])
