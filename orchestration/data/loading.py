"""Images in memory: decoding, the fixed split, and batches in counted order.

The test part is read once per network, after its last epoch. Search uses the rest as a weight and
an architecture part, retraining uses both. Shapes: N images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cluster.storage import Storage
from nas_core.batch import Batch
from nas_core.randomness import generator
from orchestration.config.data import DataSettings
from orchestration.config.loading import SpecError
from orchestration.data.decode import decode_image, resize
from orchestration.data.glyphs import Glyphs, render
from orchestration.data.npz import tensors_from_bytes, tensors_to_bytes
from orchestration.data.sources import class_files, describe
from orchestration.data.split import is_architecture
from orchestration.data.transforms import NUMBERS, Recipe, augmented, moved

CPU = torch.device("cpu")
PARTS = ("train", "test")


@dataclass(frozen=True)
class ImageSet:
    """Images and labels in memory."""

    images: Tensor
    """(N, C, H, W), uint8."""
    labels: Tensor
    """(N,), int64."""
    groups: Tensor | None = None
    """(N,), int64, where images of a group must not be in two parts: glyphs of a font."""
    hashes: Tensor | None = None
    """(N,), int64: the bits of `images.keys`, where the part of an image follows from its key."""

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> ImageSet:
        """The images at `indices`, in their order."""
        groups = None if self.groups is None else self.groups[indices]
        hashes = None if self.hashes is None else self.hashes[indices]
        return ImageSet(self.images[indices], self.labels[indices], groups, hashes)


@dataclass(frozen=True)
class Dataset:
    """A data source, split."""

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    is_cropped: bool = False
    """Whether networks see the middle of images; these are made square as a whole."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def examples(self, count: int) -> Tensor:
        """(n, C, H, W), uint8: the first images of the test part."""
        return self.test.images[:count]

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of the training images, 0 to 1."""
        return tuple((self.train.images.double().mean((0, 2, 3)) / 255).tolist())

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Per channel, of the training images; never below 1/255."""
        std = self.train.images.double().std((0, 2, 3)) / 255
        return tuple(std.clamp_min(1 / 255).tolist())


def load_dataset(settings: DataSettings, seed: int, storage: Storage | None = None) -> Dataset:
    """Decode or render a source and split off its test part.

    Args:
        settings: which images.
        seed: of the split; glyphs have a seed of their own.
        storage: where rendered images are kept for the next time, if anywhere.

    Raises:
        SpecError: an image cannot be decoded, or a part would be without a class.
    """
    if settings.source == "glyphs":
        train, test = (_glyphs(settings, part, storage) for part in PARTS)
        return Dataset(train, test, describe(settings).classes)
    if settings.source == "parquet":
        from orchestration.data.parquet.in_memory import load_parquet

        return Dataset(*load_parquet(settings, storage), describe(settings).classes)
    load = _load_digits if settings.source == "digits" else _load_folder
    whole, classes = load(settings)
    test, train = split_classes(whole, settings.test_share, seed, "test split")
    return Dataset(train, test, classes)


def keep_images(settings: DataSettings, storage: Storage) -> None:
    """Render or decode what takes long, so that `load_dataset` finds it in storage."""
    if settings.source == "parquet":
        from orchestration.data.parquet.in_memory import load_parquet

        load_parquet(settings, storage)
    if settings.source == "glyphs":
        for part in PARTS:
            _glyphs(settings, part, storage)


def split_classes(
    whole: ImageSet, share: float, seed: int, purpose: str, test_share: float = 0.0
) -> tuple[ImageSet, ImageSet]:
    """Split off `share` of every class, at least one image of each and never all.

    Where images have groups, as many of the groups are split off, at least one and never all. Where
    they have hashes of keys, these decide, whatever seed and purpose are: then `test_share` says
    which of them were in the test part.

    Returns:
        The part split off, and the rest; both in the order of `whole`.
    """
    if whole.hashes is not None:
        chosen = torch.from_numpy(
            is_architecture(whole.hashes.numpy().view(np.uint64), share, test_share)
        )
        return whole.subset(chosen.nonzero().flatten()), whole.subset((~chosen).nonzero().flatten())
    if whole.groups is not None:
        groups = torch.tensor(sorted(set(whole.groups.tolist())))
        chosen = torch.isin(whole.groups, _some_of(groups, share, generator(seed, purpose)))
        return whole.subset(chosen.nonzero().flatten()), whole.subset((~chosen).nonzero().flatten())
    chosen = torch.zeros(len(whole), dtype=torch.bool)
    for label in sorted(set(whole.labels.tolist())):
        members = (whole.labels == label).nonzero().flatten()
        chosen[_some_of(members, share, generator(seed, purpose, label))] = True
    return whole.subset(chosen.nonzero().flatten()), whole.subset((~chosen).nonzero().flatten())


def _some_of(members: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """At least one of the members, and not all."""
    count = min(max(1, round(share * len(members))), len(members) - 1)
    return members[torch.randperm(len(members), generator=rng)[:count]]


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (N, C, H, W) to float with mean 0 and deviation 1 per channel, channels_last."""
    shape = (1, -1, 1, 1)
    centre = torch.tensor(mean, device=images.device).view(shape)
    scale = torch.tensor(std, device=images.device).view(shape)
    return ((images.float() / 255 - centre) / scale).contiguous(memory_format=torch.channels_last)


def _load_digits(settings: DataSettings) -> tuple[ImageSet, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # 8x8, 0 to 16
    images = resize(grey, settings.resolution).expand(-1, settings.channels or 1, -1, -1)
    labels = torch.from_numpy(digits.target).long()
    return ImageSet(images.contiguous(), labels), tuple(str(name) for name in digits.target_names)


def _glyphs(settings: DataSettings, part: str, storage: Storage | None) -> ImageSet:
    """A part of the glyphs: from storage, else rendered and kept there."""
    key = f"data/{describe(settings).fingerprint}/{part}.npz"
    kept = None if storage is None else storage.find_bytes(key)
    if kept is not None:
        found = Glyphs(**tensors_from_bytes(kept))
    else:
        asked = settings.glyphs
        count = asked.test if part == "test" else asked.train
        found = render(asked, part, count, settings.resolution, settings.channels or 1)
        if storage is not None:
            storage.write_bytes(key, tensors_to_bytes(**found._asdict()))
    groups = found.fonts if settings.glyphs.separate_fonts else None
    return ImageSet(found.images, found.labels, groups)


def _load_folder(settings: DataSettings) -> tuple[ImageSet, tuple[str, ...]]:
    files = class_files(settings)
    images, labels = [], []
    for label, paths in enumerate(files.values()):
        for path in paths:
            try:
                image = decode_image(path.read_bytes(), settings.channels or 3, settings.resolution)
            except ValueError as error:
                raise SpecError(f"data.path: {path} is {error}; mend or remove the file") from None
            images.append(image)
            labels.append(label)
    return ImageSet(torch.stack(images), torch.tensor(labels)), tuple(files)


@dataclass(frozen=True)
class MemoryLoader:
    """Training batches of one worker. Every image once a pass, whatever the number of workers.

    Order and augmentation come from (seed, purpose, pass or batch), so they are the same for any
    number of workers, and a resumed run goes on where it was.
    """

    data: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int
    """Images of one step, all workers together; the batches of a pass differ by one at most."""
    seed: int
    purpose: str
    rank: int = 0
    size: int = 1
    max_shift: float = 0.0
    flip: bool = False
    recipe: Recipe | None = None
    """Where crops or colours are drawn: it moves and mirrors too."""
    device: torch.device = CPU

    @classmethod
    def of(
        cls,
        part: ImageSet,
        dataset: Dataset,
        recipe: Recipe,
        batch_size: int,
        seed: int,
        purpose: str,
        rank: int = 0,
        size: int = 1,
        device: torch.device = CPU,
    ) -> MemoryLoader:
        """Of a part of a data set, augmented by a recipe; see the fields for the others."""
        is_drawn = recipe.needs_numbers
        return cls(
            part,
            dataset.mean,
            dataset.std,
            batch_size=batch_size,
            seed=seed,
            purpose=purpose,
            rank=rank,
            size=size,
            max_shift=0.0 if is_drawn else recipe.max_shift,
            flip=recipe.flip and not is_drawn,
            recipe=recipe if is_drawn else None,
            device=device,
        )

    def __post_init__(self) -> None:
        smallest = len(self.data) // self.steps
        if smallest < self.size:
            raise SpecError(
                f"{len(self.data)} images in batches of {self.batch_size} leave a batch of "
                f"{smallest} for {self.size} workers; raise batch_size or take fewer workers"
            )

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        return -(-len(self.data) // self.batch_size)

    def batches(self, start: int) -> Iterator[Batch]:
        """Endless, from batch number `start` of all passes on."""
        number = start
        while True:
            for indices in self._order(number // self.steps)[number % self.steps :]:
                yield self._batch(indices, number)
                number += 1

    def _order(self, this_pass: int) -> list[Tensor]:
        rng = generator(self.seed, f"order of {self.purpose}", this_pass)
        order = torch.randperm(len(self.data), generator=rng)
        return list(order.tensor_split(self.steps))

    def _batch(self, indices: Tensor, number: int) -> Batch:
        rng = generator(self.seed, f"augmentation of {self.purpose}", number)
        shifts, flips = self._draw(len(indices), rng)
        mine = torch.arange(len(indices)).tensor_split(self.size)[self.rank]
        part = self.data.subset(indices[mine])
        if self.recipe is not None:
            numbers = torch.rand(len(indices), NUMBERS, dtype=torch.float64, generator=rng)
            part = replace(part, images=augmented(part.images, self.recipe, numbers[mine]))
        images = part.images.to(self.device, non_blocking=True)
        images = moved(images, shifts[mine].to(self.device))
        images = torch.where(
            flips[mine].to(self.device)[:, None, None, None], images.flip(3), images
        )
        labels = part.labels.to(self.device, non_blocking=True)
        images = normalise(images, self.mean, self.std)
        return Batch(images, labels, total=len(indices), first=int(mine[0]))

    def _draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Shifts in pixels (count, 2) and whether to mirror (count,), for the whole batch."""
        most = int(self.max_shift * self.data.images.shape[-1])
        shifts = torch.randint(-most, most + 1, (count, 2), generator=rng)
        flips = torch.rand(count, generator=rng) < (0.5 if self.flip else 0.0)
        return shifts, flips


def evaluation_batches(
    data: ImageSet,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    rank: int = 0,
    size: int = 1,
    device: torch.device = CPU,
    batch_size: int = 256,
) -> Iterator[Batch]:
    """One worker's part of a set, in order, without augmentation."""
    mine = torch.arange(len(data)).tensor_split(size)[rank]
    for first in range(0, len(mine), batch_size):
        indices = mine[first : first + batch_size]
        part = data.subset(indices)
        images = normalise(part.images.to(device), mean, std)
        yield Batch(images, part.labels.to(device), total=len(indices))
