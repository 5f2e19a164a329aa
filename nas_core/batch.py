"""Training batches: one worker's part of a batch, and the loader protocol.

Shapes: N = batch, C = channels, H, W = height and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One worker's part of a batch."""

    images: Tensor
    """Normalised images, (n, C, H, W)."""
    labels: Tensor
    """Class indices, (n,), int64."""
    total: int
    """Number of images of the batch on all workers together."""
    first: int = 0
    """Position of the first image in the whole batch: images on workers of lower rank and in
    earlier micro-batches come before it. Random draws are indexed by this position, so that they
    do not depend on how a batch is split.
    """

    @property
    def share(self) -> float:
        """Fraction of the batch in this part: the weight of its gradients in the average."""
        return len(self.labels) / self.total

    def parts(self, size: int | None) -> list[Batch]:
        """Split into micro-batches of at most `size` images; None: no split."""
        count = len(self.labels)
        if size is None or count <= size:
            return [self]
        return [
            Batch(self.images[i : i + size], self.labels[i : i + size], self.total, self.first + i)
            for i in range(0, count, size)
        ]


class Loader(Protocol):
    """Batches of training images in a reproducible order; every image is used once per epoch."""

    @property
    def steps(self) -> int:
        """Number of batches per epoch."""
        ...

    def batches(self, start: int) -> Iterator[Batch]:
        """Endless iterator from batch number `start` on, counted over all epochs.

        Every epoch has its own order.
        """
        ...


@dataclass(frozen=True)
class SearchData:
    """The two splits of the training images that a search uses."""

    weight: Loader
    architecture: Loader
