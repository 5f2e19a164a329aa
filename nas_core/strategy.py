"""What a strategy is: one update of a search, as values.

A strategy returns values and touches no optimizer, so two can be compared on the same batch. Those
that learn architecture parameters on the supernet are in `arch_update.py`, those that only compare
networks in `controls.py`.
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
    """A network that was scored."""

    path: tuple[int, ...]
    """Chosen op per site."""
    accuracy: float
    """On the architecture part, 0 to 1."""
    loss: float
    """Cross entropy there."""
    latency_ms: float
    """By the table."""
    score: float
    """Reward of the objective: the larger the better."""


@dataclass(frozen=True)
class UpdateContext:
    """What an update may look at. It changes nothing of it."""

    net: Supernet
    """In training mode."""
    goal: LatencyGoal
    objective: Objective
    settings: SearchSettings
    seed: int
    number: int
    """Updates made before."""
    group: ProcessGroup
    data: SearchData
    batch: Batch | None = None
    """Of the architecture part, this worker's share; None for strategies that score whole parts."""
    baseline: float | None = None
    """Moving average of the rewards of earlier updates."""
    trials: Sequence[ScoredNetwork] = ()
    """Networks scored by earlier updates."""
    loss_scale: float = 1.0
    """Keeps gradients of fp16 from vanishing; what they say is divided by it."""

    def common_rng(self, purpose: str) -> torch.Generator:
        """Draws that are equal on all workers."""
        return generator(self.seed, purpose, self.number)

    def own_rng(self, purpose: str) -> torch.Generator:
        """Draws of these images alone: the same however a batch is cut up among workers."""
        first = self.batch.first if self.batch is not None else 0
        return generator(self.seed, purpose, self.number, first)


@dataclass(frozen=True)
class Update:
    """What one update found on this worker."""

    grads: list[Tensor] | None = None
    """Gradient for each site's alpha, shapes as in `net.alphas()`; None: nothing is learnt."""
    loss: Tensor | None = None
    """Cross entropy that `grads` belong to, detached scalar; None where they are of a reward."""
    reward: float | None = None
    """Mean reward of the networks that were scored."""
    pairs: list[Pair] | None = None
    """The two ops per site that were compared, where only two were."""
    trial: ScoredNetwork | None = None
    """A network that was scored, to be kept."""


class Strategy(Protocol):
    """One way to find architectures."""

    @property
    def weights(self) -> Literal["path", "mixture", "fixed", "alone"]:
        """What the weight steps of the search train.

        Sampled paths; the mixture of all ops, in the warm-up too; nothing, the supernet stays as
        the warm-up left it; or there is no supernet and every network is trained alone.
        """
        ...

    def update(self, scene: UpdateContext) -> Update:
        """One update from one batch, or the score of one network. Changes nothing."""
        ...
