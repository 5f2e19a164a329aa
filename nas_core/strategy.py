"""Protocol of search strategies: one update of a search, as values.

A strategy returns values and does not touch an optimizer, so that strategies can be compared on the
same batch. `gradient_strategies.py` has those that learn architecture parameters on the supernet,
`sampling_strategies.py` those that score one network at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from nas_core.batch import Batch, SearchData
from nas_core.gates import Pair
from nas_core.objective import LatencyGoal, Objective
from nas_core.randomness import generator
from nas_core.search_settings import SearchSettings
from nas_core.supernet import Supernet
from nas_core.workers import ProcessGroup


@dataclass(frozen=True)
class ScoredNetwork:
    """A network and its score."""

    path: tuple[int, ...]
    """Chosen op per site."""
    accuracy: float
    """Top-1 accuracy on the architecture split, 0 to 1."""
    loss: float
    """Cross entropy on the architecture split."""
    latency_ms: float
    """Latency according to the table."""
    score: float
    """Reward of the objective; higher is better."""


@dataclass(frozen=True)
class UpdateContext:
    """Read-only inputs of an update."""

    net: Supernet
    """The supernet, in training mode."""
    goal: LatencyGoal
    objective: Objective
    settings: SearchSettings
    seed: int
    number: int
    """Number of earlier updates."""
    group: ProcessGroup
    data: SearchData
    batch: Batch | None = None
    """Share of this worker in a batch of the architecture split; None for strategies that score
    networks on the whole split.
    """
    baseline: float | None = None
    """Moving average of the rewards of earlier updates."""
    trials: Sequence[ScoredNetwork] = ()
    """Networks scored by earlier updates."""
    loss_scale: float = 1.0
    """Factor on the loss against underflow in fp16; gradients are divided by it afterwards."""

    def common_rng(self, purpose: str) -> torch.Generator:
        """Generator that is equal on all workers."""
        return generator(self.seed, purpose, self.number)

    def own_rng(self, purpose: str) -> torch.Generator:
        """Generator for the images of this batch, however a batch is split among workers."""
        first = self.batch.first if self.batch is not None else 0
        return generator(self.seed, purpose, self.number, first)


@dataclass(frozen=True)
class Update:
    """Result of one update on this worker."""

    grads: list[Tensor] | None = None
    """Gradient for each site's alpha, shapes as in `net.alphas()`; None: no gradient step."""
    loss: Tensor | None = None
    """Cross entropy that `grads` derive from, detached scalar; None if they are of a reward."""
    reward: float | None = None
    """Mean reward of the networks that were scored."""
    pairs: list[Pair] | None = None
    """The two ops per site that were compared; None for strategies that compare all."""
    trial: ScoredNetwork | None = None
    """The network that was scored, to be added to the search state."""


class Strategy(Protocol):
    """A way to find architectures."""

    @property
    def weights(self) -> Literal["path", "mixture", "fixed", "alone"]:
        """Networks that the weight steps of the search train.

        "path": sampled paths; "mixture": the mixture of all ops, in the warm-up too; "fixed":
        nothing, the supernet does not change after the warm-up; "alone": there is no supernet,
        every network is trained from scratch.
        """
        ...

    def update(self, context: UpdateContext) -> Update:
        """Compute one update from one batch, or score one network, without side effects."""
        ...
