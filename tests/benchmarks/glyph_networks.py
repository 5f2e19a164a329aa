"""Networks of a small space, each trained alone on rendered characters; ground truth for rankings.

Run `python tests/benchmarks/glyph_networks.py`. It draws 48 of the 400 networks of the space below,
trains each from two seeds, one thread each, two at a time, and writes one JSON line per training to
`results/`. A second start runs what is missing. `supernet_ranking.py` reads the lines.

All trainings use the same 3,200 images (24x24, grey, 16 letters) and are scored on 6,000 others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch
from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.blocks import initialise
from nas_core.gates import uniform_path
from nas_core.randomness import generator
from nas_core.space import Stage, chain
from nas_core.train import evaluate
from nas_core.workers import SingleProcess
from tests.benchmarks.glyphs import CHARACTERS, Distortion, glyphs, standardised
from tests.benchmarks.lines import as_they_come, commit, results_file
from tests.benchmarks.tabular import Path_, Recipe, train

TRAIN_IMAGES, TEST_IMAGES, NETWORKS, SEEDS = 3200, 6000, 48, 2
SPACE = chain(
    "yardstick",  # part of the digest of trainings that are kept
    stages=[Stage(12, 2, 1), Stage(16, 2, 2)],
    ops=["mbconv_k3_e3", "mbconv_k3_e6", "mbconv_k7_e3", "mbconv_k7_e6", "skip"],
    in_channels=1,
    resolution=24,
    classes=16,
    stem_channels=8,
    stem_stride=2,
    head_channels=64,
)


def digest(recipe: Recipe) -> str:
    """Digest of recipe, images and space; trainings can be compared if it is equal."""
    sites = [asdict(site) for site in SPACE.sites]
    of = [asdict(recipe), asdict(Distortion()), TRAIN_IMAGES, TEST_IMAGES, CHARACTERS, sites]
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Images:
    """Standardised images, shape (N, 1, 24, 24), and their labels, shape (N,)."""

    images: Tensor
    labels: Tensor

    def batch(self, indices: Tensor) -> Batch:
        """Batch of the images at these indices."""
        return Batch(self.images[indices], self.labels[indices], len(indices))

    def batches(self, size: int) -> list[Batch]:
        """Batches of all images, `size` at a time."""
        return [self.batch(some) for some in torch.arange(len(self.labels)).split(size)]


@cache
def data() -> tuple[Images, Images]:
    """Training and test images."""
    train, labels = glyphs(TRAIN_IMAGES, seed=0, part="train")
    test, test_labels = glyphs(TEST_IMAGES, seed=0, part="test")
    return (
        Images(standardised(train, train), labels),
        Images(standardised(test, train), test_labels),
    )


def drawn_paths(count: int = NETWORKS) -> list[Path_]:
    """Different networks of the space, drawn uniformly; a larger count extends a smaller one."""
    choices = [len(site.ops) for site in SPACE.sites]
    result: dict[Path_, None] = {}
    for draw in range(10 * SPACE.size()):
        result[tuple(uniform_path(choices, generator(0, "glyph networks", draw)))] = None
        if len(result) == count:
            break
    return list(result)


def train_alone(path: Path_, seed: int) -> dict[str, Any]:
    """Train one network from scratch; return its result line."""
    torch.set_num_threads(1)
    (train_part, test_part), recipe = data(), Recipe()
    architecture = Architecture.from_path(SPACE, list(path))
    network = architecture.build()
    initialise(network, generator(seed, "alone"))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    began = time.perf_counter()
    train(network, train_part.batch, len(train_part.labels), recipe, seed)
    seconds = time.perf_counter() - began
    result = evaluate(network.eval(), test_part.batches(500), SingleProcess())
    return {
        "what": "network trained alone",
        "path": list(path),
        "seed": seed,
        "top1": round(result.top1, 5),
        "loss": round(result.loss, 5),
        "macs": architecture.macs(),
        "params": architecture.num_params(),
        "seconds": round(seconds, 1),
        "recipe": digest(recipe),
        "torch": torch.__version__,
        "commit": commit(),
    }


def kept() -> dict[tuple[Path_, int], dict[str, Any]]:
    """Stored result lines of trainings with this recipe, by path and seed."""
    folder = results_file("glyph_networks").parent
    lines = [
        json.loads(text)
        for file in sorted(folder.glob("glyph_networks__*.json"))
        for text in file.read_text().splitlines()
    ]
    mine = [line for line in lines if line["recipe"] == digest(Recipe())]
    return {(tuple(line["path"]), line["seed"]): line for line in mine}


def main() -> None:
    """Train what is missing; print how much accuracy varies across networks and across seeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, default=NETWORKS, help="number of networks, of 400")
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time")
    options = parser.parse_args()
    done = kept()
    wanted = [(p, s) for p in drawn_paths(options.networks) for s in range(SEEDS)]
    missing = [item for item in wanted if item not in done]
    for result in as_they_come(train_alone, missing, options.processes):
        text = json.dumps(result)
        with results_file("glyph_networks").open("a") as file:
            file.write(text + "\n")
        print(text, flush=True)
    _tell([kept()[item] for item in wanted])


def _tell(lines: list[dict[str, Any]]) -> None:
    by_path: dict[Path_, list[float]] = {}
    for line in lines:
        by_path.setdefault(tuple(line["path"]), []).append(100 * line["top1"])
    means = [statistics.mean(values) for values in by_path.values()]
    noise = statistics.mean(statistics.variance(values) for values in by_path.values()) ** 0.5
    print(
        f"top-1 {min(means):.1f} to {max(means):.1f} %, standard deviation "
        f"{statistics.stdev(means):.2f} points across networks, {noise:.2f} across seeds",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
