"""Tabular benchmark: a small space in which every network was trained alone and timed.

The accuracy of any network that a search finds can be looked up. VERSION fixes data, space, recipe
and budgets: a change needs a new version, and all rows are made again.

The space is designed so that networks of equal latency differ in accuracy: the first two sites have
a resolution of 12x12 and as many channels as the last two at 6x6, cost four times as much and are
worth less; and a cheap op without expansion competes with the inverted bottlenecks.
Shapes: N images, K classes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.blocks import initialise
from nas_core.latency import LatencyTable
from nas_core.progress import Evaluation
from nas_core.randomness import generator
from nas_core.space import Stage, chain
from nas_core.train import evaluate, refresh_statistics
from nas_core.workers import SingleProcess
from orchestration.config.data import DataSettings, GlyphSettings
from orchestration.data.dataset import Dataset, ImageSet, normalise
from orchestration.data.glyphs import checksum
from orchestration.data.loading import load_dataset

VERSION = 1
DATA = DataSettings(
    source="glyphs",
    resolution=24,
    max_shift=0.0,
    glyphs=GlyphSettings(train=8000, test=10_000, classes=40),
)
SPACE = chain(
    "yardstick",
    stages=[Stage(16, 2, 1), Stage(16, 2, 2)],
    ops=["sepconv_k3", "mbconv_k3_e6", "mbconv_k7_e3", "skip"],
    in_channels=1,
    resolution=24,
    classes=40,
    stem_channels=16,
    stem_stride=2,
    head_channels=64,
)
SEEDS = (0, 1)
"""Training seeds of every network."""
MORE_SEEDS = (2, 3)
"""Further seeds of the twenty best networks within each budget: the best of many noisy means is
overestimated."""
BATCH = 16
"""Batch size of latencies: at batch 1 many networks take under a tenth of a millisecond."""
BUDGET_SHARES = (0.3, 0.45, 0.7)
"""Budgets as quantiles of the latencies of all networks, by the latency table. On both targets
seven or more networks take 0.9 to 1.0 of each budget."""
FOLDER = Path(__file__).parent / "ground_truth"
Path_ = tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """Training recipe of a network alone: AdamW with a one-cycle learning rate."""

    epochs: int = 5
    batch_size: int = 32
    lr: float = 0.02
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    label_smoothing: float = 0.1


RECIPE = Recipe(batch_size=64, lr=0.01)
REFRESH_BATCHES = 20
"""Number of training batches for BatchNorm statistics before the test."""


@cache
def dataset() -> Dataset:
    """Images of the benchmark."""
    return load_dataset(DATA, seed=0)


def checksums() -> list[str]:
    """Checksums of the training and the test images with their labels."""
    data = dataset()
    return [checksum(part.images, part.labels) for part in (data.train, data.test)]


def digest() -> str:
    """Digest of images, space and recipe; trainings can be compared if it is equal."""
    what = [VERSION, checksums(), SPACE.to_dict(), asdict(RECIPE), REFRESH_BATCHES]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def place(ending: str) -> Path:
    """Path of a file of this version."""
    return FOLDER / f"v{VERSION}{ending}"


def all_paths() -> list[Path_]:
    """Paths of all networks of the space: index of the op at each site."""
    return list(itertools.product(*(range(len(site.ops)) for site in SPACE.sites)))


def name_of(path: Path_) -> str:
    """Name of a path: the indices of its ops, as in "1-2-0-3"."""
    return "-".join(map(str, path))


def names() -> list[str]:
    """Names of all networks, in the order of `all_paths`."""
    return [name_of(path) for path in all_paths()]


def latency(target: str) -> tuple[LatencyTable, list[float]]:
    """Latency table of the space on a target, and its budgets in milliseconds."""
    table = LatencyTable.from_dict(json.loads(place(f"-{target}.json").read_text()))
    facts = json.loads(place("-latency.json").read_text())
    return table, facts[target]["budgets_ms"]


def measured_ms(target: str) -> dict[str, float]:
    """Latencies of all whole networks by name, measured interleaved in one run."""
    facts = json.loads(place("-latency.json").read_text())
    result: dict[str, float] = facts[target]["measured_ms"]
    return result


def network_of(path: Path_) -> Architecture:
    """Network of a path."""
    return Architecture.from_path(SPACE, list(path))


def trained_alone(path: Path_, seed: int, recipe: Recipe = RECIPE) -> Evaluation:
    """Train one network from scratch; return its evaluation on the test images."""
    data, network = dataset(), network_of(path).build()
    initialise(network, generator(seed, "yardstick", *path))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batch(some: Tensor) -> Batch:
        return _batch(data, data.train, some)

    train(network, batch, len(data.train), recipe, seed)
    order = torch.split(torch.arange(len(data.train)), recipe.batch_size)[:REFRESH_BATCHES]
    refresh_statistics(network, map(batch, order))
    return evaluate(network.eval(), _test_batches(data), SingleProcess())


def train(
    network: nn.Module, batch: Callable[[Tensor], Batch], images: int, recipe: Recipe, seed: int
) -> None:
    """Train a network in place.

    Args:
        network: network to train, from its current weights.
        batch: returns the images at given indices, standardised, with their labels.
        images: number of training images.
        recipe: training recipe.
        seed: determines the order of the images.
    """
    steps = recipe.epochs * -(-images // recipe.batch_size)
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.lr, recipe.betas, weight_decay=recipe.weight_decay
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=steps, cycle_momentum=False
    )
    network.train()
    for epoch in range(recipe.epochs):
        order = torch.randperm(images, generator=generator(seed, "order", epoch))
        for part in map(batch, torch.split(order, recipe.batch_size)):
            optimizer.zero_grad()
            logits = network(part.images)
            F.cross_entropy(logits, part.labels, label_smoothing=recipe.label_smoothing).backward()
            optimizer.step()
            cycle.step()


def _batch(data: Dataset, part: ImageSet, indices: Tensor) -> Batch:
    images = normalise(part.images[indices], data.mean, data.std)
    return Batch(images, part.labels[indices], total=len(indices))


def _test_batches(data: Dataset) -> Iterator[Batch]:
    for some in torch.arange(len(data.test)).split(500):
        yield _batch(data, data.test, some)
