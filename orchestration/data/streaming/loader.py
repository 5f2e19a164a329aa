"""Batches of images that are too large for memory: what `MemoryLoader` does, from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nas_core.batch import Batch
from orchestration.config.loading import SpecError
from orchestration.data.streaming.batching import EpochBatches, Problems, Source, joined, some_of
from orchestration.data.streaming.epoch_order import Piece, lanes_of
from orchestration.data.streaming.ray_data import Pipeline, StreamError
from orchestration.data.streaming.reader import Block, ReadPlan
from orchestration.data.streaming.subset import StreamedSet
from orchestration.data.transforms import Recipe

Normalise = Callable[[Tensor], Tensor]
"""uint8 (N, C, R, R) to what a network takes, on the worker's device."""


def nobody(_problems: list[str]) -> None:
    """Images that cannot be decoded are left out, and nobody is told."""


@dataclass(frozen=True)
class Reading:
    """How a worker reads: the same for all parts."""

    normalise: Normalise
    device: torch.device
    readers: int = 1
    """Tasks at a time."""
    ahead_bytes: int = 128 * 1024**2
    """Of decoded images that wait."""
    on_problems: Problems = nobody
    opened: Callable[[ReadPlan, int, int], Source] = Pipeline

    def source(self, plan: ReadPlan) -> Source:
        """Blocks of a plan; reading begins at once."""
        return self.opened(plan, self.readers, self.ahead_bytes)

    def batch(self, block: Block, total: int, first: int = 0) -> Batch:
        """Of the images of a block that could be decoded.

        Raises:
            StreamError: there is none.
        """
        is_good = block["problem"] == ""
        if not is_good.all():
            block = some_of(block, np.flatnonzero(is_good))
        if not len(block["label"]):
            raise StreamError(
                f"none of a worker's {len(is_good)} images of a batch can be decoded; mend or "
                "remove those in bad_samples.csv, or raise batch_size"
            )
        images = torch.from_numpy(np.ascontiguousarray(block["image"]))
        labels = torch.from_numpy(block["label"].astype(np.int64))
        return Batch(self.normalise(images), labels.to(self.device), total, first)


@dataclass(frozen=True)
class StreamLoader:
    """Training batches of one worker, from files; see `MemoryLoader`.

    Which images a batch holds depends on the seed, the number of lanes and the size of windows; how
    an image is augmented on its key and the epoch; nothing on the number of workers. An image that
    cannot be decoded is left out of its batch, whose `total` still counts it: it has the weight 0.
    """

    data: StreamedSet
    batch_size: int
    """Images of one step, all workers together; the batches of a pass differ by one at most."""
    seed: int
    purpose: str
    recipe: Recipe
    reading: Reading
    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        lanes = self.data.settings.stream.lanes
        if self.size > lanes:
            raise SpecError(
                f"data.stream.lanes is {lanes}, and {self.size} workers read; expected a lane for "
                "each at least: raise it, or take fewer workers"
            )
        if len(self.data) < self.steps * lanes:
            raise SpecError(
                f"{len(self.data)} images in batches of {self.batch_size} leave none for some of "
                f"{lanes} lanes; raise batch_size, or lower data.stream.lanes"
            )

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        return -(-len(self.data) // self.batch_size)

    @property
    def lanes(self) -> range:
        """Those of this worker."""
        return lanes_of(self.rank, self.size, self.data.settings.stream.lanes)

    def batches(self, start: int) -> Iterator[Batch]:
        """Endless, from batch number `start` of all passes on.

        Reading of the next pass begins when this one is read: its start takes a second or two.
        """
        number, step = divmod(start, self.steps)
        feeds = [self._feed(number, step)]
        try:
            while True:
                for now in range(step, self.steps):
                    batch = self._batch(feeds[0], now)
                    if feeds[0].source.is_finished and len(feeds) == 1:
                        feeds.append(self._feed(number + 1, 0))
                    yield batch
                if len(feeds) == 1:
                    feeds.append(self._feed(number + 1, 0))
                feeds.pop(0).source.close()
                number, step = number + 1, 0
        finally:
            for feed in feeds:
                feed.source.close()

    def _feed(self, number: int, step: int) -> EpochBatches:
        epoch = self.data.epoch(self.batch_size, self.seed, self.purpose, number)
        pieces = epoch.pieces(self.lanes, step)
        plan = self.data.plan(pieces, self.recipe, self.seed, self.purpose, number)
        reading = self.reading
        source = reading.source(plan)
        return EpochBatches(epoch, self.lanes, step, source, plan.starts, reading.on_problems)

    def _batch(self, feed: EpochBatches, step: int) -> Batch:
        epoch = feed.epoch
        before = sum(epoch.share(lane, step) for lane in range(self.lanes.start))
        return self.reading.batch(feed.take(step), epoch.batch(step), before)


def streamed_batches(
    data: StreamedSet,
    recipe: Recipe,
    reading: Reading,
    rank: int = 0,
    size: int = 1,
    batch_size: int = 256,
) -> Iterator[Batch]:
    """One worker's part of a set, in order, without augmentation; see `evaluation_batches`."""
    start, stop = (part * len(data) // size for part in (rank, rank + 1))
    plan = data.plan(_pieces(data, start, stop), recipe.for_test, 0, "the test", 0)
    source = reading.source(plan)
    waiting: list[Block] = []
    try:
        left = stop - start
        while left:
            count = min(batch_size, left)
            while sum(len(one["label"]) for one in waiting) < count:
                waiting.append(_told(next(source), reading))
            whole = joined(waiting)
            waiting = [some_of(whole, slice(count, None))]
            left -= count
            yield reading.batch(some_of(whole, slice(count)), count)
    finally:
        source.close()


def _told(block: Block, reading: Reading) -> Block:
    """A block of whose problems somebody was told."""
    if problems := [text for text in block["problem"] if text]:
        reading.on_problems(problems)
    return block


def _pieces(data: StreamedSet, start: int, stop: int) -> list[Piece]:
    """Rows of a part from `start` to before `stop`, by row group."""
    found = []
    for group, (first, end) in enumerate(zip(data.starts[:-1], data.starts[1:], strict=True)):
        here = max(first, start), min(end, stop)
        if here[0] < here[1]:
            found.append(Piece(group, int(here[0] - first), int(here[1] - first), 0, 0.0))
    return found
