"""Images in memory: a labelled set, and a data source split into training and test part."""

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


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (N, C, H, W) to float with mean 0 and deviation 1 per channel, channels_last."""
    shape = (1, -1, 1, 1)
    centre = torch.tensor(mean, device=images.device).view(shape)
    scale = torch.tensor(std, device=images.device).view(shape)
    return ((images.float() / 255 - centre) / scale).contiguous(memory_format=torch.channels_last)
