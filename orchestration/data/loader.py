"""Batches of images in memory, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nas_core.batch import Batch
from nas_core.randomness import generator
from orchestration.config.loading import SpecError
from orchestration.data.dataset import Dataset, ImageSet, normalise
from orchestration.data.transforms import NUMBERS, Recipe, augmented, moved

CPU = torch.device("cpu")


@dataclass(frozen=True)
class MemoryLoader:
    """Training batches of one worker. All workers together use every image once per pass.

    Order and augmentation are drawn from (seed, purpose, number of the pass or batch), so they are
    the same for any number of workers and in a resumed run.
    """

    data: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int
    """Images per step of all workers together. Batches of a pass differ in size by one at most."""
    seed: int
    purpose: str
    rank: int = 0
    size: int = 1
    max_shift: float = 0.0
    flip: bool = False
    recipe: Recipe | None = None
    """Augmentation with crops or colours, which includes shifts and flips. `max_shift` and `flip`
    are then 0 and False."""
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
        """Loader of a part of a data set, augmented by a recipe. Other arguments are the fields."""
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
        """Number of batches per pass."""
        return -(-len(self.data) // self.batch_size)

    def batches(self, start: int) -> Iterator[Batch]:
        """Yield batches without end, from batch number `start` on, counted over all passes."""
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
    """Batches of one worker's part of a set, in order, without augmentation."""
    mine = torch.arange(len(data)).tensor_split(size)[rank]
    for first in range(0, len(mine), batch_size):
        indices = mine[first : first + batch_size]
        part = data.subset(indices)
        images = normalise(part.images.to(device), mean, std)
        yield Batch(images, part.labels.to(device), total=len(indices))
