"""Which image comes when, in an epoch that is streamed: the same for any number of workers.

Row groups are dealt in an order that the seed says, and what was dealt is cut into lanes of equal
length. Within a lane stretches of rows, its windows, are shuffled, and a batch takes a share from
every lane. A worker reads some of the lanes; since there are as many lanes however many workers
there are, a batch holds the same images for any number of them, each image once an epoch.
Shapes: N rows, G row groups with rows of the part, L lanes, S steps.
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
    """Its place among the row groups of the part."""
    first: int
    """Of its rows in the part."""
    stop: int
    lane: int
    need: float
    """When it is needed, 0 to 1: from the beginning to the end of the epoch."""


@dataclass(frozen=True)
class Epoch:
    """The order of one epoch."""

    sizes: tuple[int, ...]
    """(G,): rows of the part in each row group, none of them 0."""
    lanes: int
    steps: int
    window: int
    """Rows of a lane that are shuffled together."""
    seed: int
    purpose: str
    number: int

    @cached_property
    def deal(self) -> list[int]:
        """(G,): row groups in the order in which they are dealt."""
        rng = generator(self.seed, f"order of {self.purpose}", self.number)
        order: list[int] = torch.randperm(len(self.sizes), generator=rng).tolist()
        return order

    @cached_property
    def _dealt(self) -> Numbers:
        """(G + 1,): rows before each row group that is dealt."""
        return np.cumsum([0, *(self.sizes[group] for group in self.deal)])

    @property
    def rows(self) -> int:
        """N."""
        return int(self._dealt[-1])

    def bounds(self, lane: int) -> tuple[int, int]:
        """First row that is dealt to a lane, and the one behind its last."""
        return lane * self.rows // self.lanes, (lane + 1) * self.rows // self.lanes

    def length(self, lane: int) -> int:
        """Rows of a lane."""
        start, stop = self.bounds(lane)
        return stop - start

    def position(self, lane: int, step: int) -> int:
        """Rows of a lane that the steps before this one take.

        Lanes of equal length take their odd rows at different steps, so that batches differ by one
        image at most.
        """
        count = self.length(lane)
        return (step * count * self.lanes + lane * self.steps) // (self.steps * self.lanes)

    def batch(self, step: int) -> int:
        """Images of a step, all lanes together."""
        return sum(self.share(lane, step) for lane in range(self.lanes))

    def share(self, lane: int, step: int) -> int:
        """Images that a step takes from a lane."""
        return self.position(lane, step + 1) - self.position(lane, step)

    def windows(self, lane: int) -> list[int]:
        """Bounds of the windows of a lane. First ones differ, so that lanes turn over in turn."""
        count = self.length(lane)
        first = max(1, self.window * (lane + 1) // self.lanes)
        return [0, *range(first, count, self.window), count] if count else [0]

    def shuffled(self, lane: int, window: int) -> Numbers:
        """Places in a window of a lane, in the order in which they are taken."""
        bounds = self.windows(lane)
        count = bounds[window + 1] - bounds[window]
        rng = generator(self.seed, f"window of {self.purpose}", self.number, lane, window)
        order: Numbers = torch.randperm(count, generator=rng).numpy()
        return order

    def pieces(self, lanes: Sequence[int], step: int = 0) -> list[Piece]:
        """What has to be read for some lanes from a step on, in the order of need."""
        found = [piece for lane in lanes for piece in self._of_lane(lane, step)]
        return sorted(found, key=lambda piece: (piece.need, piece.lane))

    def first_row(self, lane: int, step: int) -> int:
        """Of a lane, the first row that is read where steps before this one are left out."""
        bounds, position = self.windows(lane), self.position(lane, step)
        return max(bound for bound in bounds if bound <= position)

    def _of_lane(self, lane: int, step: int) -> Iterator[Piece]:
        start, stop = self.bounds(lane)
        bounds, row = np.asarray(self.windows(lane)), start + self.first_row(lane, step)
        while row < stop:
            dealt = int(np.searchsorted(self._dealt, row, side="right")) - 1
            end = min(int(self._dealt[dealt + 1]), stop)
            window = int(np.searchsorted(bounds, row - start, side="right")) - 1
            first = row - int(self._dealt[dealt])
            group, need = self.deal[dealt], float(bounds[window]) / (stop - start)
            yield Piece(group, first, first + end - row, lane, need)
            row = end


def lanes_of(rank: int, size: int, lanes: int) -> range:
    """Those that a worker reads: next to each other, so that its images are so in a batch."""
    return range(rank * lanes // size, (rank + 1) * lanes // size)
