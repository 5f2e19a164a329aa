"""Assemble the batches of an epoch from blocks of decoded images, with a shuffle buffer per lane.

Blocks come in the order in which they are read; `epoch_order.py` defines lanes, windows and pieces.
Shapes: P pieces that a worker reads.
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
"""Callback for images that cannot be decoded, with one "key<TAB>reason" for each."""


class Source(Protocol):
    """Reader of the blocks of a worker's pieces, in a fixed order."""

    is_finished: bool
    """Whether all blocks have been returned."""

    def __next__(self) -> Block: ...

    def close(self) -> None:
        """Stop reading, even if blocks are left."""
        ...


def joined(blocks: Sequence[Block]) -> Block:
    """Concatenation of one or more blocks."""
    if len(blocks) == 1:
        return blocks[0]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def rows_at(block: Block, indices: Numbers | slice) -> Block:
    """Rows of a block at `indices`."""
    return {name: column[indices] for name, column in block.items()}


@dataclass
class ShuffleBuffer:
    """Shuffle buffer of one lane: rows of the current window, and later rows of the lane."""

    epoch: Epoch
    lane: int
    row: int
    """Index in the lane of the next row to be added."""
    _window: int = -1
    """Index of the current window; -1 before the first."""
    _window_rows: Block = field(default_factory=dict)
    """Rows of the current window, in the order in which they were read."""
    _order: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    """Permutation of the rows of the current window."""
    _waiting: list[Block] = field(default_factory=list)
    """Rows after the current window."""

    def __post_init__(self) -> None:
        self._bounds = self.epoch.windows(self.lane)

    def add(self, block: Block) -> None:
        """Add the next rows of the lane. They are copied, so that Ray can free the block."""
        self._waiting.append({name: column.copy() for name, column in block.items()})
        self.row += len(block["label"])

    def needs(self, position: int) -> bool:
        """Whether rows have to be added before the row at this position can be taken."""
        return self.row < self._bounds[self._at(position) + 1]

    def take(self, first: int, stop: int) -> list[Block]:
        """Rows [first, stop) of the shuffled lane. Successive calls must not go back."""
        blocks = []
        while first < stop:
            window = self._at(first)
            if window != self._window:
                self._open(window)
            end = min(self._bounds[window + 1], stop)
            start = self._bounds[window]
            blocks.append(rows_at(self._window_rows, self._order[first - start : end - start]))
            first = end
        return blocks

    def _at(self, position: int) -> int:
        """Index of the window that contains a position."""
        return int(np.searchsorted(self._bounds, position, side="right")) - 1

    def _open(self, window: int) -> None:
        """Make a window the current one. Its rows must be the first waiting rows."""
        missing, rows = self._bounds[window + 1] - self._bounds[window], []
        while missing:
            block = self._waiting.pop(0)
            rows.append(rows_at(block, slice(missing)))
            if len(block["label"]) > missing:  # Copied: a view would keep the whole block alive.
                rest = {name: column[missing:].copy() for name, column in block.items()}
                self._waiting.insert(0, rest)
            missing -= len(rows[-1]["label"])
        self._window_rows, self._window = joined(rows), window
        self._order = self.epoch.shuffled(self.lane, window)


class EpochBatches:
    """Batches of one epoch for one worker."""

    def __init__(
        self,
        epoch: Epoch,
        lanes: Sequence[int],
        first_step: int,
        source: Source,
        starts: Numbers,
        on_problems: Problems,
    ) -> None:
        """Start at `first_step`, with a source that is already being read.

        Args:
            epoch: the order of the epoch.
            lanes: lanes of this worker.
            first_step: first step to return, when an epoch is resumed.
            source: blocks of the pieces of these lanes, from that step on. Each block belongs to
                one piece.
            starts: (P + 1,), index in the source of the first row of each piece.
            on_problems: called with images that cannot be decoded.
        """
        self.epoch, self.source = epoch, source
        self._starts, self._on_problems = starts, on_problems
        self._lane_of_piece = [piece.lane for piece in epoch.pieces(lanes, first_step)]
        self._buffers = {
            lane: ShuffleBuffer(epoch, lane, epoch.first_row(lane, first_step)) for lane in lanes
        }

    def take(self, step: int) -> Block:
        """Rows of the batch of a step that come from this worker's lanes. Steps must increase."""
        blocks: list[Block] = []
        for lane, buffer in self._buffers.items():
            first, stop = self.epoch.position(lane, step), self.epoch.position(lane, step + 1)
            while first < stop and buffer.needs(stop - 1):
                self._pull()
            blocks += buffer.take(first, stop)
        return joined(blocks)

    def _pull(self) -> None:
        block = next(self.source)
        piece = int(np.searchsorted(self._starts, block["position"][0], side="right")) - 1
        problems = [text for text in block["problem"] if text]
        if problems:
            self._on_problems(problems)
        self._buffers[self._lane_of_piece[piece]].add(block)
