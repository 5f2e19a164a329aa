"""Spaces, tables and data that are small enough to enumerate, for tests only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, product

import torch
from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.latency import LatencyEntry, LatencyTable, OpSignature, op_signatures
from nas_core.space import SearchSpace, Stage, chain

K3, K5, K7 = "mbconv_k3_e3", "mbconv_k5_e3", "mbconv_k7_e3"


def two_sites(ops: Sequence[str] = (K3, K5, "skip"), *, sites: int = 2) -> SearchSpace:
    """Sites that keep their shape: 4 channels of 4x4, for grey images of 8x8, three classes."""
    return chain(
        "tiny",
        stages=[Stage(4, sites, 1)],
        ops=ops,
        in_channels=1,
        resolution=8,
        classes=3,
        stem_channels=4,
        stem_stride=2,
        head_channels=8,
        reference_op=ops[0],
    )


def all_paths(space: SearchSpace) -> Iterator[tuple[int, ...]]:
    """Every choice of one op per site."""
    return product(*(range(len(site.ops)) for site in space.sites))


def all_architectures(space: SearchSpace) -> list[Architecture]:
    return [Architecture(space, ops) for ops in product(*(site.ops for site in space.sites))]


def table_of(space: SearchSpace, cost_ms: Callable[[OpSignature], float]) -> LatencyTable:
    """A table in which the latency of every part is `cost_ms(part)`."""
    return LatencyTable(
        target="desk",
        hardware="desk (imagined)",
        runtime="none",
        runtime_version="0",
        space=space,
        rows=tuple(row_of(part, cost_ms(part)) for part in op_signatures(space)),
    )


def row_of(part: OpSignature, ms: float) -> LatencyEntry:
    return LatencyEntry(part=part, median_ms=ms, p10_ms=ms, p90_ms=ms, spread=0.0, count=1)


def noisy_table(space: SearchSpace, seed: int) -> LatencyTable:
    """A table with random latencies between 0.1 and 1.1 ms."""
    rng = torch.Generator().manual_seed(seed)
    return table_of(space, lambda _: 0.1 + float(torch.rand((), generator=rng)))


def images_and_labels(images: int, seed: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Noise with a bright band of rows whose position depends on the class."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    pixels = 0.5 * torch.randn(images, 1, 8, 8, generator=rng)
    rows, first = torch.arange(8), 2 * labels[:, None]
    in_band = (first <= rows) & (rows < first + 3)
    return pixels + in_band[:, None, :, None], labels


class Images:
    """Images in memory, in a new order for every epoch; each worker gets a part of every batch."""

    def __init__(
        self, images: int, batch_size: int, *, seed: int = 0, rank: int = 0, size: int = 1
    ) -> None:
        self.images, self.labels = images_and_labels(images, seed)
        self.batch_size, self.seed, self.rank, self.size = batch_size, seed, rank, size
        self.steps = images // batch_size

    def batches(self, start: int) -> Iterator[Batch]:
        for number in count(start):
            epoch, step = divmod(number, self.steps)
            rng = torch.Generator().manual_seed(1000 * self.seed + epoch)
            order = torch.randperm(len(self.labels), generator=rng)
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            parts = chosen.tensor_split(self.size)
            mine, before = parts[self.rank], sum(map(len, parts[: self.rank]))
            yield Batch(self.images[mine], self.labels[mine], len(chosen), before)
