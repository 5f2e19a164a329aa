"""Order of a streamed epoch: each row once, in the same batches for any number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.data.streaming.batching import EpochBatches
from orchestration.data.streaming.epoch_order import Epoch, Piece, lanes_of
from orchestration.data.streaming.reader import Block

EPOCH = Epoch(
    sizes=(30, 7, 1, 50, 22, 41), lanes=4, steps=9, window=13, seed=3, purpose="x", number=2
)


class RowNumbers:
    """A source whose labels are the numbers of the rows, in blocks of three."""

    def __init__(self, epoch: Epoch, pieces: Sequence[Piece]) -> None:
        before = np.cumsum([0, *epoch.sizes])
        rows = [np.arange(p.first, p.stop) + before[p.group] for p in pieces]
        self.starts = np.cumsum([0, *map(len, rows)])
        self.is_finished = False
        self.handed_out = 0
        self._blocks = iter(list(self._cut(rows)))

    def _cut(self, pieces: list[np.ndarray]) -> Iterator[Block]:
        for rows, start in zip(pieces, self.starts, strict=False):
            for i in range(0, len(rows), 3):
                some = rows[i : i + 3]
                positions = np.arange(i, i + len(some)) + start
                problem = np.array([""] * len(some), dtype=object)
                yield {"label": some, "position": positions, "problem": problem}

    def __next__(self) -> Block:
        block = next(self._blocks)
        self.handed_out += len(block["label"])
        return block

    def close(self) -> None:
        pass


def taken(epoch: Epoch, lanes: Sequence[int], first_step: int = 0) -> list[list[int]]:
    """Row numbers of each step for the worker of these lanes."""
    source = RowNumbers(epoch, epoch.pieces(lanes, first_step))
    batches = EpochBatches(epoch, lanes, first_step, source, source.starts, lambda _: None)
    return [batches.take(step)["label"].tolist() for step in range(first_step, epoch.steps)]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    lanes=st.integers(1, 7),
    steps=st.integers(1, 20),
    window=st.integers(1, 50),
    number=st.integers(0, 3),
)
def test_every_row_comes_once_an_epoch(
    sizes: list[int], lanes: int, steps: int, window: int, number: int
) -> None:
    steps = max(1, min(steps, sum(sizes) // lanes))
    epoch = Epoch(tuple(sizes), lanes, steps, window, 0, "x", number)
    if sum(sizes) < lanes * steps:
        return
    result = [row for step in taken(epoch, range(lanes)) for row in step]
    assert sorted(result) == list(range(sum(sizes)))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_batches_are_the_same_for_any_number_of_workers(size: int) -> None:
    alone = taken(EPOCH, range(4))
    workers = [taken(EPOCH, lanes_of(rank, size, 4)) for rank in range(size)]
    for step, batch in enumerate(alone):
        assert [row for worker in workers for row in worker[step]] == batch


@pytest.mark.parametrize("first", range(9))
def test_a_resumed_epoch_goes_on_as_an_uninterrupted_one(first: int) -> None:
    assert taken(EPOCH, range(4), first) == taken(EPOCH, range(4))[first:]
    assert taken(EPOCH, [2], first) == taken(EPOCH, [2])[first:]


def test_batches_differ_by_one_image_at_most() -> None:
    epoch = replace(EPOCH, sizes=(100, 60), lanes=8, steps=7)
    sizes = [len(batch) for batch in taken(epoch, range(8))]
    assert set(sizes) == {160 // 7, 160 // 7 + 1}
    assert sizes == [epoch.batch(step) for step in range(7)]


def test_every_epoch_has_its_own_order() -> None:
    assert taken(EPOCH, range(4)) != taken(replace(EPOCH, number=3), range(4))
    assert taken(EPOCH, range(4)) != taken(replace(EPOCH, seed=4), range(4))


def test_rows_of_a_group_are_spread_over_a_window() -> None:
    epoch = Epoch((1000,), 1, 10, 1000, 0, "x", 0)
    batch = taken(epoch, [0])[0]
    assert max(batch) - min(batch) > 800


def test_a_resumed_worker_reads_no_more_than_a_window_again() -> None:
    epoch = Epoch((100,) * 50, 2, 100, 200, 0, "x", 0)
    position = epoch.position(0, 60)
    read = sum(piece.stop - piece.first for piece in epoch.pieces([0], 60))
    assert read - (epoch.length(0) - position) < 200


def test_no_more_lies_ready_than_windows_and_a_row_group_for_each_lane() -> None:
    epoch = Epoch((100,) * 50, 4, 100, 200, 0, "x", 0)
    source = RowNumbers(epoch, epoch.pieces(range(4)))
    batches = EpochBatches(epoch, range(4), 0, source, source.starts, lambda _: None)
    taken_rows, most = 0, 0
    for step in range(epoch.steps):
        taken_rows += len(batches.take(step)["label"])
        most = max(most, source.handed_out - taken_rows)
    assert most < 4 * (200 + 100)


def test_lanes_turn_over_at_different_steps() -> None:
    starts = [EPOCH.windows(lane)[1] for lane in range(4)]
    assert len(set(starts)) == 4
    for lane in range(4):
        assert all(0 < b - a <= 13 for a, b in pairwise(EPOCH.windows(lane)))
