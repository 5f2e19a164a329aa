"""Order of the images in a streamed epoch, which is the same for any number of workers.

The row groups are put into a random order, and the sequence of their rows is cut into lanes of
equal length. A lane is cut into windows, whose rows are shuffled. A batch takes a share from every
lane. Each worker reads some of the lanes. The number of lanes does not depend on the number of
workers, so neither does the content of a batch. Every image comes once per epoch.
Shapes: N rows, G row groups with rows of the part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from nas_core.randomness import generator
from orchestration.data.split import Numbers


@dataclass(frozen=True)
class Piece:
    """Rows of a row group, read together."""

    group: int
    """Index among the row groups of the part."""
    first: int
    """First row, counted among the rows of the group that are in the part."""
    stop: int
    """Row after the last, counted in the same way."""
    lane: int
    need: float
    """Point of the epoch at which the rows are needed, from 0 (start) to 1 (end)."""


@dataclass(frozen=True)
class Epoch:
    """Order of one epoch."""

    sizes: tuple[int, ...]
    """(G,): number of rows of the part in each row group, at least 1."""
    lanes: int
    steps: int
    window: int
    """Number of rows of a lane that are shuffled together."""
    seed: int
    purpose: str
    number: int

    @cached_property
    def group_order(self) -> list[int]:
        """(G,): row groups in random order."""
        rng = generator(self.seed, f"order of {self.purpose}", self.number)
        order: list[int] = torch.randperm(len(self.sizes), generator=rng).tolist()
        return order

    @cached_property
    def _group_starts(self) -> Numbers:
        """(G + 1,): first row of each row group in that order, and N."""
        return np.cumsum([0, *(self.sizes[group] for group in self.group_order)])

    @property
    def rows(self) -> int:
        """Number of rows, N."""
        return int(self._group_starts[-1])

    def bounds(self, lane: int) -> tuple[int, int]:
        """First row of a lane, and the row after its last."""
        return lane * self.rows // self.lanes, (lane + 1) * self.rows // self.lanes

    def length(self, lane: int) -> int:
        """Number of rows of a lane."""
        start, stop = self.bounds(lane)
        return stop - start

    def position(self, lane: int, step: int) -> int:
        """Number of rows of a lane that the steps before `step` take.

        If the rows do not divide evenly among the steps, lanes contribute their extra rows at
        different steps, so that batches differ in size by one at most.
        """
        count = self.length(lane)
        return (step * count * self.lanes + lane * self.steps) // (self.steps * self.lanes)

    def batch(self, step: int) -> int:
        """Batch size of a step, all lanes together."""
        return sum(self.share(lane, step) for lane in range(self.lanes))

    def share(self, lane: int, step: int) -> int:
        """Number of images that a step takes from a lane."""
        return self.position(lane, step + 1) - self.position(lane, step)

    def windows(self, lane: int) -> list[int]:
        """Bounds of the windows of a lane.

        First windows differ in length, so that lanes do not begin new windows at the same step.
        """
        count = self.length(lane)
        first = max(1, self.window * (lane + 1) // self.lanes)
        return [0, *range(first, count, self.window), count] if count else [0]

    def shuffled(self, lane: int, window: int) -> Numbers:
        """Random order of the rows of a window, as indices into the window."""
        bounds = self.windows(lane)
        count = bounds[window + 1] - bounds[window]
        rng = generator(self.seed, f"window of {self.purpose}", self.number, lane, window)
        order: Numbers = torch.randperm(count, generator=rng).numpy()
        return order

    def pieces(self, lanes: Sequence[int], step: int = 0) -> list[Piece]:
        """Pieces to read for some lanes from a step on, in the order in which they are needed."""
        pieces = [piece for lane in lanes for piece in self._of_lane(lane, step)]
        return sorted(pieces, key=lambda piece: (piece.need, piece.lane))

    def first_row(self, lane: int, step: int) -> int:
        """First row of a lane to read if the epoch starts at `step`: the start of its window."""
        bounds, position = self.windows(lane), self.position(lane, step)
        return max(bound for bound in bounds if bound <= position)

    def _of_lane(self, lane: int, step: int) -> Iterator[Piece]:
        start, stop = self.bounds(lane)
        bounds, row = np.asarray(self.windows(lane)), start + self.first_row(lane, step)
        while row < stop:
            index = int(np.searchsorted(self._group_starts, row, side="right")) - 1
            end = min(int(self._group_starts[index + 1]), stop)
            window = int(np.searchsorted(bounds, row - start, side="right")) - 1
            first = row - int(self._group_starts[index])
            group, need = self.group_order[index], float(bounds[window]) / (stop - start)
            yield Piece(group, first, first + end - row, lane, need)
            row = end


def lanes_of(rank: int, size: int, lanes: int) -> range:
    """Lanes of a worker. They are contiguous, so that its images are contiguous in every batch."""
    return range(rank * lanes // size, (rank + 1) * lanes // size)
