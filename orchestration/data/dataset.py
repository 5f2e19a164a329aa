"""Labelled images in memory, and a data source split into a training and a test part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

PARTS = ("train", "test")


@dataclass(frozen=True)
class ImageSet:
    """Images and labels in memory."""

    images: Tensor
    """(N, C, H, W), uint8."""
    labels: Tensor
    """(N,), int64."""
    groups: Tensor | None = None
    """(N,), int64. Images of one group must stay in one part, e.g. glyphs of one font. None: no
    groups."""
    hashes: Tensor | None = None
    """(N,), int64: hashes of keys as bits, if the part of an image follows from its key; see
    `split.py`."""

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> ImageSet:
        """Images at `indices`, in that order."""
        groups = None if self.groups is None else self.groups[indices]
        hashes = None if self.hashes is None else self.hashes[indices]
        return ImageSet(self.images[indices], self.labels[indices], groups, hashes)


@dataclass(frozen=True)
class Dataset:
    """A data source in memory, split into a training and a test part."""

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    is_cropped: bool = False
    """Whether networks see the centre crop of images. False: whole images, resized to a square."""

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
        """Mean per channel of the training images, 0 to 1."""
        return tuple((self.train.images.double().mean((0, 2, 3)) / 255).tolist())

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation per channel of the training images; at least 1/255."""
        std = self.train.images.double().std((0, 2, 3)) / 255
        return tuple(std.clamp_min(1 / 255).tolist())


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Standardize uint8 images (N, C, H, W): (pixel / 255 - mean) / std, channels_last."""
    shape = (1, -1, 1, 1)
    centre = torch.tensor(mean, device=images.device).view(shape)
    scale = torch.tensor(std, device=images.device).view(shape)
    return ((images.float() / 255 - centre) / scale).contiguous(memory_format=torch.channels_last)
