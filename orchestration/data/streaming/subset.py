"""A part of a streamed set: the rows of files that belong to it. Nothing is decoded here.

Shapes: N rows of the part, G row groups that hold some of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from orchestration.config.data import DataSettings
from orchestration.data.parquet.row_index import RowIndex
from orchestration.data.split import Hashes, Numbers, is_architecture, is_test
from orchestration.data.streaming.epoch_order import Epoch, Piece
from orchestration.data.streaming.reader import ReadPlan, plan_arrays
from orchestration.data.transforms import Recipe

MOST_TOGETHER = 10_000
"""Largest number of images that are shuffled together. An epoch cannot start before the first
windows are read, so small images are limited too."""


def all_rows(index: RowIndex, settings: DataSettings, channels: int) -> StreamedSet:
    """The whole set, as one part."""
    return StreamedSet(index, np.arange(len(index)), settings, channels)


@dataclass(frozen=True)
class StreamedSet:
    """A part of a set of images in files."""

    index: RowIndex
    rows: Numbers
    """(N,): row numbers in the index, ascending."""
    settings: DataSettings
    channels: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> Numbers:
        """Labels, (N,)."""
        labels: Numbers = self.index.labels[self.rows]
        return labels

    @property
    def hashes(self) -> Hashes:
        """Hashes of the keys, (N,)."""
        return self.index.hashes[self.rows]

    @cached_property
    def starts(self) -> Numbers:
        """(G + 1,): index in `rows` of the first row of each row group, and N."""
        groups = self.index.groups_of(self.rows)
        firsts = np.flatnonzero(np.diff(groups, prepend=-1))
        return np.append(firsts, len(self.rows))

    @property
    def sizes(self) -> tuple[int, ...]:
        """(G,): number of rows of the part in each row group."""
        return tuple(np.diff(self.starts).tolist())

    def where(self, is_chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> StreamedSet:
        """The part with the chosen rows only."""
        return replace(self, rows=self.rows[is_chosen])

    def split_test(self) -> tuple[StreamedSet, StreamedSet]:
        """Split into test part and training images."""
        is_held = is_test(self.hashes, self.settings.test_share)
        return self.where(is_held), self.where(~is_held)

    def split_architecture(self, share: float) -> tuple[StreamedSet, StreamedSet]:
        """Split training images into architecture part and weight part."""
        is_held = is_architecture(self.hashes, share, self.settings.test_share)
        return self.where(is_held), self.where(~is_held)

    def plan(
        self, pieces: Sequence[Piece], recipe: Recipe, seed: int, purpose: str, epoch: int
    ) -> ReadPlan:
        """Plan to read pieces, in their order."""
        index, starts = self.index, self.starts
        indices = [np.arange(starts[piece.group] + piece.first, starts[piece.group] + piece.stop)
                   for piece in pieces]  # fmt: skip
        groups = [int(index.groups_of(self.rows[some[:1]])[0]) for some in indices]
        located = [
            (
                int(index.files[group]),
                int(index.numbers[group]),
                self.rows[some] - index.starts[group],
            )
            for group, some in zip(groups, indices, strict=True)
        ]
        whole = self.rows[np.concatenate(indices)] if indices else self.rows[:0]
        columns, settings = self.settings.columns, self.settings
        files, numbers, firsts, rows = plan_arrays(located)
        return ReadPlan(
            paths=index.paths,
            image_column=columns.image,
            key_column=columns.key,
            channels=self.channels,
            resolution=settings.resolution,
            recipe=recipe,
            seed=seed,
            purpose=purpose,
            epoch=epoch,
            files=files,
            groups=numbers,
            starts=firsts,
            rows=rows,
            hashes=index.hashes[whole],
            labels=index.labels[whole],
        )

    def epoch(self, batch_size: int, seed: int, purpose: str, number: int) -> Epoch:
        """Order of an epoch."""
        stream = self.settings.stream
        image_bytes = self.channels * self.settings.resolution**2
        together = min(stream.window_mib * 1024**2 // image_bytes, MOST_TOGETHER)
        return Epoch(
            sizes=self.sizes,
            lanes=stream.lanes,
            steps=-(-len(self) // batch_size),
            window=max(1, together // stream.lanes),
            seed=seed,
            purpose=purpose,
            number=number,
        )
