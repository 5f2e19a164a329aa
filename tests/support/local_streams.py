"""Image streams without Ray: its tasks run in the test's process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from orchestration.data.streaming.loader import Reading
from orchestration.data.streaming.reader import Block, ReadPlan, read_piece

CPU = torch.device("cpu")


class Here:
    """Iterator over the blocks of a read plan."""

    def __init__(self, plan: ReadPlan, _readers: int, _ahead_bytes: int) -> None:
        self.is_finished, self._left = False, len(plan.rows)
        self.closed = 0
        self._blocks = self._read(plan)

    def _read(self, plan: ReadPlan) -> Iterator[Block]:
        for number in range(len(plan.files)):
            yield from read_piece(plan, number)

    def __next__(self) -> Block:
        block = next(self._blocks)
        self._left -= len(block["label"])
        self.is_finished = self._left == 0
        return block

    def close(self) -> None:
        self.closed += 1


def reading(**settings: Any) -> Reading:
    """Settings of a stream that leaves images as they are stored (uint8)."""
    return Reading(lambda images: images, CPU, **{"opened": Here, **settings})
