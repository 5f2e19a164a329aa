"""A set that is streamed, as workers know it. Shapes: C channels, R pixels, N images."""

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
"""Training images of which mean and deviation are taken, and row groups that they come from."""


@dataclass(frozen=True)
class StreamedDataset:
    """A data source, split; see `orchestration.data.loading.Dataset`."""

    facts: DataFacts
    train: StreamedSet
    test: StreamedSet
    mean: tuple[float, ...]
    """Per channel, of some training images, 0 to 1."""
    std: tuple[float, ...]
    """The same; never below 1/255."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return self.facts.classes

    @property
    def is_cropped(self) -> bool:
        """Whether networks see the middle of images in the test."""
        return self.train.settings.augment == "crop"

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, R, R."""
        return self.train.channels, self.train.settings.resolution, self.train.settings.resolution

    def examples(self, count: int) -> Tensor:
        """(N, C, R, R), uint8: images of the test part."""
        return some_images(self.test, count, 1)


def load_streamed(
    settings: DataSettings, storage: Storage | None, facts: DataFacts | None = None
) -> StreamedDataset:
    """Find out which rows belong to which part, and what the images are like.

    Args:
        settings: which files.
        storage: where both is kept for the next time, if anywhere.
        facts: of the files, if they were looked at before.

    Raises:
        SpecError: a file cannot serve.
        ReadError: one cannot be read.
    """
    facts = facts or describe(settings)
    index = row_index(settings, facts, storage)
    test, train = all_rows(index, settings, facts.channels).split_test()
    mean, std = _statistics(train, facts, storage)
    return StreamedDataset(facts, train, test, mean, std)


def _statistics(
    train: StreamedSet, facts: DataFacts, storage: Storage | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation; kept, since all workers need the same."""
    settings = train.settings
    size = f"{facts.resolution}x{facts.channels}-{settings.test_share:g}-{settings.augment}"
    place = statistics_file(facts.fingerprint, size)
    kept = None if storage is None else storage.find_json(place)
    if kept is None:
        images = some_images(train, SAMPLE, SAMPLED_GROUPS).double() / 255
        mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3)).clamp_min(1 / 255)
        kept = {"format": STATISTICS_FORMAT, "mean": mean.tolist(), "std": std.tolist()}
        if storage is not None:
            storage.write_json(place, kept)
    return tuple(kept["mean"]), tuple(kept["std"])


def some_images(part: StreamedSet, count: int, groups: int) -> Tensor:
    """(N, C, R, R), uint8: up to `count` images that can be decoded, from up to so many row groups
    that lie evenly apart; as the test sees them."""
    recipe = recipe_of(part.settings, is_retraining=False).for_test
    found = list(_decoded(part, recipe, count, groups))
    return torch.cat(found)[:count]


def _decoded(part: StreamedSet, recipe: Recipe, count: int, groups: int) -> Iterator[Tensor]:
    sizes, groups = part.sizes, min(groups, len(part.sizes))
    chosen = [i * len(sizes) // groups for i in range(groups)]
    each = -(-count // groups)
    pieces = [Piece(group, 0, min(each, sizes[group]), 0, 0.0) for group in chosen]
    plan = part.plan(pieces, recipe, 0, "statistics", 0)
    for number in range(len(pieces)):
        for block in read_piece(plan, number):
            yield torch.from_numpy(block["image"][block["problem"] == ""])
