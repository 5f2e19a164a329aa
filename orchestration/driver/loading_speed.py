"""Throughput of reading, decoding and augmenting images, measured on the job's data for a plan."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestration.data.streaming.epoch_order import Piece
from orchestration.data.streaming.reader import read_piece
from orchestration.data.streaming.subset import StreamedSet
from orchestration.data.transforms import recipe_of

if TYPE_CHECKING:
    from orchestration.stages.context import WorkerContext

LONG_ENOUGH_S = 1.5
FEWEST = 32
"""Images read before the clock starts, to exclude imports and opening the file."""


def reading_speed(context: WorkerContext) -> float | None:
    """Throughput of all readers of a case, extrapolated from one reader, images per second.

    None if images are held in memory.
    """
    part = context.dataset.train
    if not isinstance(part, StreamedSet):
        return None
    return images_per_s(part, context.task.job.seed) * context.reading.readers * context.group.size


def images_per_s(part: StreamedSet, seed: int) -> float:
    """Throughput of one process with the augmentation of retraining."""
    first = Piece(0, 0, min(FEWEST, part.sizes[0]), 0, 0.0)
    _read(part, first, seed)
    count, began = 0, time.perf_counter()
    for group, size in enumerate(part.sizes):
        count += _read(part, Piece(group, 0, size, 0, 0.0), seed)
        if time.perf_counter() - began > LONG_ENOUGH_S:
            break
    return count / (time.perf_counter() - began)


def _read(part: StreamedSet, piece: Piece, seed: int) -> int:
    recipe = recipe_of(part.settings, is_retraining=True)
    plan = part.plan([piece], recipe, seed, "speed", 0)
    return sum(len(block["label"]) for block in read_piece(plan, 0))
