"""Images on their way to a step: one worker's part of a batch, and where batches come from.

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
    """(n, C, H, W), normalised."""
    labels: Tensor
    """(n,), int64."""
    total: int
    """Images of the batch on all workers together."""
    first: int = 0
    """Images of the batch that come before these, on workers of lower rank or in earlier parts.
    Draws are counted by it, so that they are the same however a batch is cut up."""

    @property
    def share(self) -> float:
        """This part of the batch: the weight of its gradients in the average."""
        return len(self.labels) / self.total

    def parts(self, size: int | None) -> list[Batch]:
        """The same images, at most `size` of them at a time; None: all at once."""
        count = len(self.labels)
        if size is None or count <= size:
            return [self]
        return [
            Batch(self.images[i : i + size], self.labels[i : i + size], self.total, self.first + i)
            for i in range(0, count, size)
        ]


class Loader(Protocol):
    """Training images in counted order, each once a pass."""

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        ...

    def batches(self, start: int) -> Iterator[Batch]:
        """Endless, from batch number `start` of all passes on; every pass has its own order."""
        ...


@dataclass(frozen=True)
class SearchData:
    """The two parts of the training images that a search uses."""

    weight: Loader
    architecture: Loader
