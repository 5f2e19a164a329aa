"""From blocks, in the order in which they are read, to the rows of each step of an epoch.

Shapes: n rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from orchestration.data.split import Numbers
from orchestration.data.streaming.epoch_order import Epoch
from orchestration.data.streaming.reader import Block

Problems = Callable[[list[str]], None]
"""Told of images that cannot be decoded: key and reason, with a tabulator between them."""


class Source(Protocol):
    """Blocks in the order of a plan."""

    is_finished: bool
    """Whether all have been handed out."""

    def __next__(self) -> Block: ...

    def close(self) -> None:
        """End it, read to the end or not."""
        ...


def joined(blocks: Sequence[Block]) -> Block:
    """One block of several, one or more."""
    if len(blocks) == 1:
        return blocks[0]
    return {name: np.concatenate([one[name] for one in blocks]) for name in blocks[0]}


def some_of(block: Block, places: Numbers | slice) -> Block:
    """The rows of a block at some places."""
    return {name: column[places] for name, column in block.items()}


@dataclass
class ShuffleBuffer:
    """Rows of a lane that have come and are not taken: its window in use, and what lies behind."""

    epoch: Epoch
    lane: int
    row: int
    """Of the lane, the next that comes."""
    _window: int = -1
    """The one in use; its rows, and the order in which they are taken."""
    _now: Block = field(default_factory=dict)
    _order: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    _waiting: list[Block] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._bounds = self.epoch.windows(self.lane)

    def add(self, block: Block) -> None:
        """Keep the next rows of the lane; a copy, so that Ray can let go of its own."""
        self._waiting.append({name: column.copy() for name, column in block.items()})
        self.row += len(block["label"])

    def needs(self, position: int) -> bool:
        """Whether more has to come before the row at this position can be taken."""
        return self.row < self._bounds[self._at(position) + 1]

    def take(self, first: int, stop: int) -> list[Block]:
        """Rows at positions of the shuffled lane, none of them before those taken last."""
        found = []
        while first < stop:
            window = self._at(first)
            if window != self._window:
                self._open(window)
            end = min(self._bounds[window + 1], stop)
            start = self._bounds[window]
            found.append(some_of(self._now, self._order[first - start : end - start]))
            first = end
        return found

    def _at(self, position: int) -> int:
        """The window of a position."""
        return int(np.searchsorted(self._bounds, position, side="right")) - 1

    def _open(self, window: int) -> None:
        """Take the next window into use: what waits begins with it."""
        left, window_rows = self._bounds[window + 1] - self._bounds[window], []
        while left:
            block = self._waiting.pop(0)
            window_rows.append(some_of(block, slice(left)))
            if len(block["label"]) > left:  # a copy: no view of the rest keeps this window alive
                rest = {name: column[left:].copy() for name, column in block.items()}
                self._waiting.insert(0, rest)
            left -= len(window_rows[-1]["label"])
        self._now, self._window = joined(window_rows), window
        self._order = self.epoch.shuffled(self.lane, window)


class EpochBatches:
    """One epoch of one worker."""

    def __init__(
        self,
        epoch: Epoch,
        lanes: Sequence[int],
        first_step: int,
        source: Source,
        starts: Numbers,
        on_problems: Problems,
    ) -> None:
        """Describe it; its source reads already.

        Args:
            epoch: the order of all.
            lanes: those of this worker.
            first_step: steps before it are left out.
            source: blocks of the pieces of these lanes from that step on, none of several pieces.
            starts: (P + 1,): place in the source of the first row of each piece.
            on_problems: told of images that cannot be decoded.
        """
        self.epoch, self.source = epoch, source
        self._starts, self._on_problems = starts, on_problems
        self._lanes = [piece.lane for piece in epoch.pieces(lanes, first_step)]
        self._rows = {
            lane: ShuffleBuffer(epoch, lane, epoch.first_row(lane, first_step)) for lane in lanes
        }

    def take(self, step: int) -> Block:
        """The rows of a step, of the lanes of this worker."""
        found: list[Block] = []
        for lane, rows in self._rows.items():
            first, stop = self.epoch.position(lane, step), self.epoch.position(lane, step + 1)
            while first < stop and rows.needs(stop - 1):
                self._pull()
            found += rows.take(first, stop)
        return joined(found)

    def _pull(self) -> None:
        block = next(self.source)
        piece = int(np.searchsorted(self._starts, block["place"][0], side="right")) - 1
        problems = [text for text in block["problem"] if text]
        if problems:
            self._on_problems(problems)
        self._rows[self._lanes[piece]].add(block)
