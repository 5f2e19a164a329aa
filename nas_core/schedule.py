"""When a search does what: learning rates, the path of a weight step, the turns of updates.

Everything follows from the settings, the number of steps of an epoch and counters: nothing is
carried from step to step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nas_core.gates import fair_path, uniform_path
from nas_core.randomness import generator
from nas_core.search_settings import SearchSettings
from nas_core.supernet import Choice
from nas_core.train import cosine_lr

LARGEST_ALPHA_LR = 0.1
ALPHA_LR_EXPONENT = 0.745
"""Through the two settings that are known to work: 0.05 for 600 updates, 1e-3 for 115,000."""
LARGEST_WARMUP_LR = 0.1
WARMUP_LR_EXPONENT = 0.145
"""Through 0.05 for 192,000 weight steps (published) and 0.1 for 1,600, which found the same
networks as 3,200 at 0.05 (tests/benchmarks/search_quality.py)."""


@dataclass(frozen=True)
class Schedule:
    """The calendar of one search."""

    settings: SearchSettings
    steps: int
    """Weight steps of an epoch."""

    @property
    def warmup_steps(self) -> int:
        """Weight steps of the warm-up."""
        return self.settings.warmup_epochs * self.steps

    @property
    def updates(self) -> int:
        """Updates of the whole search."""
        return self.settings.updates(self.steps)

    def weight_lr(self, epoch: int, step: int) -> float:
        """Warm-up and search each fall along half a cosine."""
        settings = self.settings
        done = epoch * self.steps + step
        if epoch < settings.warmup_epochs:
            lr = settings.warmup_lr or scaled_warmup_lr(self.warmup_steps)
            return cosine_lr(lr, done, self.warmup_steps)
        return cosine_lr(settings.lr, done - self.warmup_steps, settings.epochs * self.steps)

    def alpha_lr(self, done: int) -> float:
        """Learning rate of update number `done`."""
        settings = self.settings
        lr = settings.alpha_lr or scaled_alpha_lr(self.updates)
        ramp = settings.alpha_ramp * self.updates
        return lr if done >= ramp else lr * (0.1 + 0.9 * done / ramp)

    def eta(self) -> float:
        """Step of the multiplier of the objective `learnt`."""
        return self.settings.eta or 50 / max(1, self.updates)

    def is_update_turn(self, epoch: int, step: int) -> bool:
        """Every `alpha_every` weight steps, counted on over the ends of epochs."""
        first_epoch = self.settings.warmup_epochs + self.settings.hold_epochs
        done = (epoch - first_epoch) * self.steps + step + 1
        return epoch >= first_epoch and done % self.settings.alpha_every == 0

    def scores_in(self, epoch: int) -> int:
        """Networks that are scored in an epoch that trains no weights: one per turn."""
        begun = (epoch - self.settings.warmup_epochs) * self.steps
        every = self.settings.alpha_every
        return (begun + self.steps) // every - begun // every

    def warmup_path(self, choices: list[int], seed: int, epoch: int, step: int) -> list[Choice]:
        """Path of a warm-up step: the same on all workers without a word between them."""
        number = epoch * self.steps + step
        if self.settings.warmup_sampling == "fair":
            path = fair_path(choices, number, seed)
        else:
            path = uniform_path(choices, generator(seed, "path", epoch, step))
        chance = self._share_averaged(number)
        if chance == 0:
            return list(path)
        coins = torch.rand(len(path), generator=generator(seed, "averaged sites", number))
        return [
            torch.full((k,), 1 / k) if coin < chance else choice
            for k, choice, coin in zip(choices, path, coins.tolist(), strict=True)
        ]

    def _share_averaged(self, number: int) -> float:
        """Probability that a site runs all its ops averaged in a step of the warm-up."""
        last = self.settings.op_warmup * self.warmup_steps
        return max(0.0, 1 - number / last) if last > 0 else 0.0


def search_cost(settings: SearchSettings, steps: int, choices: Sequence[int]) -> float:
    """What a search costs, in steps that train one network on one batch.

    Of a step the backward pass is two thirds; of an update it is as much as the forward pass,
    since it goes to no weights. A site whose K ops run counts as K times one with a single op, a
    little much, as stem and head are there once. So an update costs

        two_path             1: two ops forward, one of them backward
        full_path            (K + 1) / 3: all ops forward, one of them backward
        darts                2 K / 3: the mixture, which its weight steps run as well, at K
        reinforce            samples / 3: forward alone
        random, evolution    one scored network: its batches, forward alone
        rl_trials            one network, trained for `trial_epochs` and scored

    A limit in hours, and networks that are trained to measure the ranking, are left out of it.

    Args:
        settings: of the search.
        steps: weight steps of an epoch.
        choices: number of candidate ops per site.
    """
    ops = sum(choices) / len(choices)
    weights = _weight_steps(settings, steps) * (ops if settings.strategy == "darts" else 1.0)
    averaged = settings.op_warmup / 2 * settings.warmup_epochs * steps * (ops - 1)
    if settings.strategy in ("darts", "rl_trials"):  # all ops run in any case, or no warm-up
        averaged = 0.0
    return weights + averaged + settings.updates(steps) * _update_cost(settings, steps, ops)


def _weight_steps(settings: SearchSettings, steps: int) -> int:
    if settings.strategy == "rl_trials":
        return 0
    is_fixed = settings.strategy in ("random", "evolution")
    return steps * (settings.warmup_epochs if is_fixed else settings.total_epochs)


def _update_cost(settings: SearchSettings, steps: int, ops: float) -> float:
    """Of one update, in steps."""
    size, share = settings.batch_size, settings.architecture_share
    held_out = math.ceil(steps * share / (1 - share))
    scored = min(held_out, math.ceil(settings.score_images / size))
    score = (scored + math.ceil(settings.bn_images / size)) / 3
    costs = {
        "two_path": 1.0,
        "full_path": (ops + 1) / 3,
        "darts": 2 * ops / 3,
        "reinforce": settings.samples / 3,
        "rl_trials": settings.trial_epochs * steps + score,
    }
    return costs.get(settings.strategy, score)


def scaled_alpha_lr(updates: int) -> float:
    """Learning rate of architecture parameters for a search with this many updates.

    A rate that suits many updates moves nothing in a few: 1e-3 for 115,000 updates (published),
    0.05 for 600, a power law between them, never above 0.1.
    """
    return min(LARGEST_ALPHA_LR, 0.05 * math.pow(600 / max(1, updates), ALPHA_LR_EXPONENT))


def scaled_warmup_lr(steps: int) -> float:
    """Learning rate of the weights for a warm-up of this many steps.

    Short warm-ups learn too little at the published rate: 0.05 for 192,000 steps (published), 0.1
    for 1,600, a power law between them, never above 0.1.
    """
    return min(LARGEST_WARMUP_LR, 0.05 * math.pow(192_000 / max(1, steps), WARMUP_LR_EXPONENT))
