"""Batches of images that are streamed from files; the counterpart of `MemoryLoader`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nas_core.batch import Batch
from orchestration.config.loading import SpecError
from orchestration.data.streaming.batching import EpochBatches, Problems, Source, joined, rows_at
from orchestration.data.streaming.epoch_order import Piece, lanes_of
from orchestration.data.streaming.ray_data import Pipeline, StreamError
from orchestration.data.streaming.reader import Block, ReadPlan
from orchestration.data.streaming.subset import StreamedSet
from orchestration.data.transforms import Recipe

Normalise = Callable[[Tensor], Tensor]
"""Function from uint8 images (N, C, R, R) to the network's input, on the worker's device."""


def ignore_problems(_problems: list[str]) -> None:
    """Leave out images that cannot be decoded without reporting them."""


@dataclass(frozen=True)
class Reading:
    """Reading options of a worker, the same for all parts of the data."""

    normalise: Normalise
    device: torch.device
    readers: int = 1
    """Number of tasks that run at a time."""
    ahead_bytes: int = 128 * 1024**2
    """Limit of decoded images that are prefetched, bytes."""
    on_problems: Problems = ignore_problems
    opened: Callable[[ReadPlan, int, int], Source] = Pipeline

    def source(self, plan: ReadPlan) -> Source:
        """Start to read the blocks of a plan."""
        return self.opened(plan, self.readers, self.ahead_bytes)

    def batch(self, block: Block, total: int, first: int = 0) -> Batch:
        """Batch of those images of a block that could be decoded.

        Raises:
            StreamError: there are none.
        """
        is_good = block["problem"] == ""
        if not is_good.all():
            block = rows_at(block, np.flatnonzero(is_good))
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
    """Training batches of one worker, streamed from files.

    The images of a batch depend on the seed, the number of lanes and the size of the windows. The
    augmentation of an image depends on the seed, its key and the epoch. Neither depends on the
    number of workers. An image that cannot be decoded is left out of its batch, but still counted
    by `total`: it has weight 0 in the loss.
    """

    data: StreamedSet
    batch_size: int
    """Images per step of all workers together. Batches of a pass differ in size by one at most."""
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
        """Number of batches per pass."""
        return -(-len(self.data) // self.batch_size)

    @property
    def lanes(self) -> range:
        """Lanes of this worker."""
        return lanes_of(self.rank, self.size, self.data.settings.stream.lanes)

    def batches(self, start: int) -> Iterator[Batch]:
        """Yield batches without end, from batch number `start` on, counted over all passes.

        The next pass is opened as soon as all blocks of the current one are read, because opening
        takes a second or two.
        """
        number, step = divmod(start, self.steps)
        epochs = [self._open_epoch(number, step)]
        try:
            while True:
                for current in range(step, self.steps):
                    batch = self._batch(epochs[0], current)
                    if epochs[0].source.is_finished and len(epochs) == 1:
                        epochs.append(self._open_epoch(number + 1, 0))
                    yield batch
                if len(epochs) == 1:
                    epochs.append(self._open_epoch(number + 1, 0))
                epochs.pop(0).source.close()
                number, step = number + 1, 0
        finally:
            for epoch in epochs:
                epoch.source.close()

    def _open_epoch(self, number: int, step: int) -> EpochBatches:
        epoch = self.data.epoch(self.batch_size, self.seed, self.purpose, number)
        pieces = epoch.pieces(self.lanes, step)
        plan = self.data.plan(pieces, self.recipe, self.seed, self.purpose, number)
        reading = self.reading
        source = reading.source(plan)
        return EpochBatches(epoch, self.lanes, step, source, plan.starts, reading.on_problems)

    def _batch(self, batches: EpochBatches, step: int) -> Batch:
        epoch = batches.epoch
        before = sum(epoch.share(lane, step) for lane in range(self.lanes.start))
        return self.reading.batch(batches.take(step), epoch.batch(step), before)


def streamed_batches(
    data: StreamedSet,
    recipe: Recipe,
    reading: Reading,
    rank: int = 0,
    size: int = 1,
    batch_size: int = 256,
) -> Iterator[Batch]:
    """Batches of one worker's part of a set, in order, without augmentation."""
    start, stop = (part * len(data) // size for part in (rank, rank + 1))
    plan = data.plan(_pieces(data, start, stop), recipe.for_test, 0, "the test", 0)
    source = reading.source(plan)
    waiting: list[Block] = []
    try:
        left = stop - start
        while left:
            count = min(batch_size, left)
            while sum(len(block["label"]) for block in waiting) < count:
                waiting.append(_reported(next(source), reading))
            whole = joined(waiting)
            waiting = [rows_at(whole, slice(count, None))]
            left -= count
            yield reading.batch(rows_at(whole, slice(count)), count)
    finally:
        source.close()


def _reported(block: Block, reading: Reading) -> Block:
    """The same block, after its problems are reported."""
    if problems := [text for text in block["problem"] if text]:
        reading.on_problems(problems)
    return block


def _pieces(data: StreamedSet, start: int, stop: int) -> list[Piece]:
    """Rows `start` to before `stop` of a part, one piece per row group."""
    pieces = []
    for group, (first, end) in enumerate(zip(data.starts[:-1], data.starts[1:], strict=True)):
        low, high = max(first, start), min(end, stop)
        if low < high:
            pieces.append(Piece(group, int(low - first), int(high - first), 0, 0.0))
    return pieces
