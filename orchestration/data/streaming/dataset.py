"""A streamed data set in a worker. Shapes: N images, C channels, R pixels of a side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.storage import Storage
from orchestration.config.data import DataSettings
from orchestration.config.storage_layout import STATISTICS_FORMAT, statistics_file
from orchestration.data.info import DataFacts
from orchestration.data.parquet.row_index import row_index
from orchestration.data.sources import describe
from orchestration.data.streaming.epoch_order import Piece
from orchestration.data.streaming.reader import read_piece
from orchestration.data.streaming.subset import StreamedSet, all_rows
from orchestration.data.transforms import Recipe, recipe_of

SAMPLE, SAMPLED_GROUPS = 2048, 8
"""Number of training images for mean and deviation, and of row groups that they come from."""


@dataclass(frozen=True)
class StreamedDataset:
    """A data source that is streamed, split into a training and a test part; compare `Dataset`."""

    facts: DataFacts
    train: StreamedSet
    test: StreamedSet
    mean: tuple[float, ...]
    """Mean per channel of a sample of the training images, 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation per channel of the same sample; at least 1/255."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.facts.classes

    @property
    def is_cropped(self) -> bool:
        """Whether networks see a centre crop of test images."""
        return self.train.settings.augment == "crop"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, R, R)."""
        return self.train.channels, self.train.settings.resolution, self.train.settings.resolution

    def examples(self, count: int) -> Tensor:
        """(N, C, R, R), uint8: images of the test part."""
        return some_images(self.test, count, 1)


def load_streamed(
    settings: DataSettings, storage: Storage | None, facts: DataFacts | None = None
) -> StreamedDataset:
    """Split a set by its row index, and get mean and deviation of its images.

    Args:
        settings: the `data:` section of the job.
        storage: cache of the row index and the statistics; None: not cached.
        facts: facts about the files, if they are known.

    Raises:
        SpecError: a file cannot be used.
        ReadError: a file cannot be read.
    """
    facts = facts or describe(settings)
    index = row_index(settings, facts, storage)
    test, train = all_rows(index, settings, facts.channels).split_test()
    mean, std = _statistics(train, facts, storage)
    return StreamedDataset(facts, train, test, mean, std)


def _statistics(
    train: StreamedSet, facts: DataFacts, storage: Storage | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation; stored, since all workers need the same values."""
    settings = train.settings
    size = f"{facts.resolution}x{facts.channels}-{settings.test_share:g}-{settings.augment}"
    path = statistics_file(facts.fingerprint, size)
    stored = None if storage is None else storage.find_json(path)
    if stored is None:
        images = some_images(train, SAMPLE, SAMPLED_GROUPS).double() / 255
        mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3)).clamp_min(1 / 255)
        stored = {"format": STATISTICS_FORMAT, "mean": mean.tolist(), "std": std.tolist()}
        if storage is not None:
            storage.write_json(path, stored)
    return tuple(stored["mean"]), tuple(stored["std"])


def some_images(part: StreamedSet, count: int, groups: int) -> Tensor:
    """Sample of up to `count` images (N, C, R, R), uint8, transformed as for the test.

    It comes from up to `groups` evenly spaced row groups. Images that cannot be decoded are
    skipped.
    """
    recipe = recipe_of(part.settings, is_retraining=False).for_test
    images = list(_decoded(part, recipe, count, groups))
    return torch.cat(images)[:count]


def _decoded(part: StreamedSet, recipe: Recipe, count: int, groups: int) -> Iterator[Tensor]:
    sizes, groups = part.sizes, min(groups, len(part.sizes))
    chosen = [i * len(sizes) // groups for i in range(groups)]
    each = -(-count // groups)
    pieces = [Piece(group, 0, min(each, sizes[group]), 0, 0.0) for group in chosen]
    plan = part.plan(pieces, recipe, 0, "statistics", 0)
    for number in range(len(pieces)):
        for block in read_piece(plan, number):
            yield torch.from_numpy(block["image"][block["problem"] == ""])
