"""Rank correlation between a supernet after its warm-up and networks trained alone.

Run `python tests/benchmarks/supernet_ranking.py` after `glyph_networks.py`. Every variant of the
warm-up below is run from some seeds, one thread each, two at a time. The 48 networks that
`glyph_networks.py` trained alone are then scored with the supernet's weights, using its BatchNorm
statistics or statistics recomputed from some batches. The scores are compared with the accuracy of
the networks trained alone (mean of two seeds, 6,000 images). The lines of single supernets are kept
too ("runs"); a second start runs what is missing.

There are two ceilings: the correlation r of the two seeds of the networks trained alone, and the
largest correlation that any score can have with the mean of both, sqrt(2 r / (1 + r)) (Spearman and
Brown). Controls are multiply-accumulates, parameters and the number of skipped sites as predictors.
"At equal skips" is the mean Spearman correlation among networks that skip equally many sites,
weighted by their number less one. It excludes an artifact: BatchNorm statistics of a supernet fit
worst where a site is skipped, so networks are ranked by their number of sites.

The supernet is trained on 2,560 of the 3,200 training images. Networks are scored on the other 640,
as in a search ("small"), and on 2,000 new images of the same kind ("large"), to see what a larger
architecture part would give.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Loader, SearchData
from nas_core.objective import LatencyGoal
from nas_core.ranking import kendall, score, spearman
from nas_core.search import search_epochs, start_search
from nas_core.search_settings import SearchSettings
from nas_core.supernet import Supernet
from nas_core.workers import SingleProcess
from orchestration.data.dataset import Dataset, ImageSet
from orchestration.data.loader import MemoryLoader, evaluation_batches
from orchestration.data.loading import split_classes
from tests.benchmarks import glyph_networks as alone
from tests.benchmarks.glyphs import CHARACTERS, glyphs
from tests.benchmarks.lines import as_they_come, commit, keep, line, results_file
from tests.support.tiny import noisy_table

LENGTHS = (8, 16, 32, 64)
LARGE_IMAGES = 2000
SCORINGS = [(0, "small"), (4, "small"), (20, "small"), (20, "large")]
"""Batches for BatchNorm statistics (0 keeps those of the supernet), and images to score on."""
ARCHITECTURE_SHARE = 0.2
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Warm-up with batch 32; the fields are settings of a search."""

    warmup_epochs: int
    warmup_sampling: str = "uniform"
    op_warmup: float = 0.0
    warmup_lr: float = 0.05

    def name(self) -> str:
        """Readable name."""
        extra = f", op warm-up {self.op_warmup:g}" if self.op_warmup else ""
        return f"{self.warmup_sampling} {self.warmup_epochs} epochs, lr {self.warmup_lr:g}{extra}"

    def settings(self) -> SearchSettings:
        """Settings of a search, of which only the warm-up is run."""
        return SearchSettings(epochs=2, batch_size=32, **asdict(self))


VARIANTS = [
    *(Variant(warmup_sampling=s, warmup_epochs=n) for n in LENGTHS for s in ("uniform", "fair")),
    Variant(warmup_sampling="fair", warmup_epochs=128),
    *(Variant(warmup_sampling="fair", warmup_epochs=n, op_warmup=0.25) for n in (16, 32)),
    *(Variant(warmup_sampling="fair", warmup_epochs=32, warmup_lr=lr) for lr in (0.0125, 0.2)),
]


def part_loader(part: ImageSet, whole: Dataset, seed: int, purpose: str) -> Loader:
    """Loader of batches of 32 in an order that depends on the seed."""
    return MemoryLoader(part, whole.mean, whole.std, 32, seed, purpose)


def dataset() -> Dataset:
    """Images of `glyph_networks.py`; a search never sees the test part."""
    train, test = (
        ImageSet(*glyphs(count, seed=0, part=part))
        for part, count in (("train", alone.TRAIN_IMAGES), ("test", alone.TEST_IMAGES))
    )
    return Dataset(train, test, tuple(CHARACTERS))


def held_out_parts(data: Dataset, small: ImageSet) -> dict[str, list[Batch]]:
    """Batches to score networks on: the architecture part, and more images of the same kind."""
    sets = {"small": small, "large": ImageSet(*glyphs(LARGE_IMAGES, seed=0, part="large"))}
    return {name: list(evaluation_batches(s, data.mean, data.std)) for name, s in sets.items()}


def warmed_up(variant: Variant, parts: SearchData, seed: int) -> Supernet:
    """Supernet after the warm-up."""
    settings = variant.settings()
    state = start_search(alone.SPACE, settings, seed, CPU)
    table = noisy_table(alone.SPACE, seed=0)  # latency has no part in a warm-up
    goal = LatencyGoal(table, table.range_ms()[1], CPU)
    epochs = search_epochs(state, parts, goal, settings, seed, SingleProcess())
    for _ in islice(epochs, variant.warmup_epochs):
        pass
    return state.supernet


def examine(variant: Variant, seed: int) -> list[dict[str, Any]]:
    """Warm up one supernet and score all networks; return a line per way of scoring."""
    torch.set_num_threads(1)
    data = dataset()
    held_out, weight = split_classes(data.train, ARCHITECTURE_SHARE, 0, "architecture part")
    parts = SearchData(
        weight=part_loader(weight, data, seed, "weights"),
        architecture=part_loader(held_out, data, seed, "architecture"),
    )
    began = time.perf_counter()
    net = warmed_up(variant, parts, seed)
    seconds = time.perf_counter() - began
    facts = {
        "supernet": variant.name(),
        **asdict(variant),
        "seed": seed,
        "seconds": round(seconds, 1),
        "recipe": alone.digest(alone.Recipe()),
        "device": line("", [0.0])["device"],
        "torch": torch.__version__,
        "commit": commit(),
    }
    batches = held_out_parts(data, held_out)
    return [
        {**facts, "bn_batches": n, "images": k, "scores": scores(net, parts, n, batches[k])}
        for n, k in SCORINGS
    ]


def scores(
    net: Supernet, parts: SearchData, bn_batches: int, held_out: Iterable[Batch]
) -> list[tuple[float, float]]:
    """Accuracy and cross entropy of every network, in the order of `drawn_paths`."""
    result = []
    for path in alone.drawn_paths():
        refresh = islice(parts.weight.batches(0), bn_batches)
        seen = score(net, path, refresh, held_out, SingleProcess())
        result.append((round(seen.top1, 4), round(seen.loss, 4)))
    return result


def examined() -> list[dict[str, Any]]:
    """Stored lines of supernets compared with networks of the same recipe."""
    lines = [json.loads(text) for file in run_files() for text in file.read_text().splitlines()]
    return [item for item in lines if item["recipe"] == alone.digest(alone.Recipe())]


def run_files() -> list[Path]:
    """Files with lines of single supernets, the newest last."""
    folder = results_file("supernet_ranking").parent
    return sorted(folder.glob("supernet_ranking_runs__*.json"), key=lambda f: f.name[-15:])


@dataclass(frozen=True)
class Truth:
    """Ground truth of the networks trained alone, in the order of `drawn_paths`."""

    first: list[float]
    """Top-1 of the first seed."""
    second: list[float]
    sizes: dict[str, list[float]]
    """Multiply-accumulates and parameters."""

    @classmethod
    def kept(cls) -> Truth:
        """Load the ground truth from the lines of `glyph_networks.py`."""
        kept, paths = alone.kept(), alone.drawn_paths()
        first, second = ([kept[path, seed]["top1"] for path in paths] for seed in (0, 1))
        sizes = {name: [kept[path, 0][name] for path in paths] for name in ("macs", "params")}
        return cls(first, second, sizes)

    def agreement(self, values: Sequence[float]) -> dict[str, float]:
        """Correlations of predicted values with the mean accuracy of networks trained alone."""
        both = [(a + b) / 2 for a, b in zip(self.first, self.second, strict=True)]
        return {
            "Spearman": spearman(values, both),
            "Kendall": kendall(values, both),
            "Spearman at equal skips": at_equal_skips(values, both),
        }

    def lines(self) -> list[dict[str, object]]:
        """Result lines of the ceilings, and of size as a predictor."""
        r = spearman(self.first, self.second)
        figures = {
            "accuracy alone, seed against seed: Spearman": r,
            "accuracy alone, seed against seed: Kendall": kendall(self.first, self.second),
            "the largest Spearman with the mean of two seeds": (2 * r / (1 + r)) ** 0.5,
        }
        for size, values in self.sizes.items():
            for kind, value in self.agreement(values).items():
                figures[f"{size}: {kind}"] = value
        figures["fewest skips: Spearman"] = self.agreement([-n for n in skips()])["Spearman"]
        return [line(what, [value]) for what, value in figures.items()]


def skips() -> list[int]:
    """Number of sites that each network skips, in the order of `drawn_paths`."""
    drawn = (Architecture.from_path(alone.SPACE, list(path)) for path in alone.drawn_paths())
    return [architecture.ops.count("skip") for architecture in drawn]


def at_equal_skips(a: Sequence[float], b: Sequence[float]) -> float:
    """Mean Spearman correlation among networks with equally many skips, in groups of 3 or more."""
    result: list[tuple[int, float]] = []
    for number in set(skips()):
        which = [i for i, n in enumerate(skips()) if n == number]
        if len(which) >= 3:
            result.append((len(which) - 1, spearman([a[i] for i in which], [b[i] for i in which])))
    return sum(weight * r for weight, r in result) / sum(weight for weight, _ in result)


def summary(runs: Sequence[dict[str, Any]], truth: Truth) -> list[dict[str, object]]:
    """A line per variant, way of scoring and correlation, over the seeds."""
    values: dict[str, list[float]] = {}
    for run in runs:
        place = f"{run['supernet']}; BN from {run['bn_batches']} batches, {run['images']} part"
        by = {"accuracy": [a for a, _ in run["scores"]], "loss": [-b for _, b in run["scores"]]}
        for name, said in by.items():
            for kind, value in truth.agreement(said).items():
                values.setdefault(f"{place}: {kind} by {name}", []).append(round(value, 3))
    device = runs[-1]["device"]  # where the supernets were trained
    return [
        {**line(w, v), "mean": round(mean(v), 3), "values": v, "device": device}
        for w, v in values.items()
    ]


def main() -> None:
    """Examine the supernets that are missing; write all results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="supernets per variant")
    parser.add_argument("--processes", type=int, default=2, help="supernets at a time")
    options = parser.parse_args()
    wanted = [(v, s) for s in range(options.seeds) for v in VARIANTS]
    done = {(run["supernet"], run["seed"]) for run in examined()}
    missing = [(v, s) for v, s in wanted if (v.name(), s) not in done]
    for result in as_they_come(examine, missing, options.processes):
        with results_file("supernet_ranking_runs").open("a") as file:
            file.writelines(json.dumps(item) + "\n" for item in result)
        print(f"{result[0]['supernet']}, seed {result[0]['seed']}", flush=True)
    truth = Truth.kept()
    newest = run_files()[-1]
    file = newest.with_name(newest.name.replace("_runs", ""))
    keep("supernet_ranking", [*truth.lines(), *summary(examined(), truth)], file)


if __name__ == "__main__":
    main()
