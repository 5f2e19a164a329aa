"""A part of a set that is too large for memory: which rows of which files. Nothing is decoded here.

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
"""Images that are shuffled together, however small: an epoch begins when the first are there."""


def all_rows(index: RowIndex, settings: DataSettings, channels: int) -> StreamedSet:
    """A whole set."""
    return StreamedSet(index, np.arange(len(index)), settings, channels)


@dataclass(frozen=True)
class StreamedSet:
    """Images in files."""

    index: RowIndex
    rows: Numbers
    """(N,): numbers of rows, ascending."""
    settings: DataSettings
    channels: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> Numbers:
        """(N,)."""
        found: Numbers = self.index.labels[self.rows]
        return found

    @property
    def hashes(self) -> Hashes:
        """(N,): of the keys."""
        return self.index.hashes[self.rows]

    @cached_property
    def starts(self) -> Numbers:
        """(G + 1,): place in `rows` of the first of each row group."""
        groups = self.index.groups_of(self.rows)
        firsts = np.flatnonzero(np.diff(groups, prepend=-1))
        return np.append(firsts, len(self.rows))

    @property
    def sizes(self) -> tuple[int, ...]:
        """(G,): rows of each row group."""
        return tuple(np.diff(self.starts).tolist())

    def where(self, is_chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> StreamedSet:
        """Some of the rows."""
        return replace(self, rows=self.rows[is_chosen])

    def split_test(self) -> tuple[StreamedSet, StreamedSet]:
        """Test part and training images."""
        is_held = is_test(self.hashes, self.settings.test_share)
        return self.where(is_held), self.where(~is_held)

    def split_architecture(self, share: float) -> tuple[StreamedSet, StreamedSet]:
        """Of training images: architecture part and weight part."""
        is_held = is_architecture(self.hashes, share, self.settings.test_share)
        return self.where(is_held), self.where(~is_held)

    def plan(
        self, pieces: Sequence[Piece], recipe: Recipe, seed: int, purpose: str, epoch: int
    ) -> ReadPlan:
        """What has to be read, in the order of the pieces."""
        index, starts = self.index, self.starts
        places = [np.arange(starts[one.group] + one.first, starts[one.group] + one.stop)
                  for one in pieces]  # fmt: skip
        groups = [int(index.groups_of(self.rows[some[:1]])[0]) for some in places]
        found = [
            (
                int(index.files[group]),
                int(index.numbers[group]),
                self.rows[some] - index.starts[group],
            )
            for group, some in zip(groups, places, strict=True)
        ]
        whole = self.rows[np.concatenate(places)] if places else self.rows[:0]
        columns, settings = self.settings.columns, self.settings
        files, numbers, firsts, rows = plan_arrays(found)
        return ReadPlan(
            places=index.places,
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
        """The order of an epoch."""
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
