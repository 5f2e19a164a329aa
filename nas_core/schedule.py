"""Schedule of a search: learning rates, paths of weight steps, and when updates take place.

Everything is a function of the settings, the number of steps per epoch and counters; there is no
state from step to step.
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
"""Power law through the two values known to work: 0.05 for 600 updates, 1e-3 for 115,000."""
LARGEST_WARMUP_LR = 0.1
WARMUP_LR_EXPONENT = 0.145
"""Power law through 0.05 for 192,000 weight steps (published) and 0.1 for 1,600, which found the
same networks as 3,200 at 0.05 (tests/benchmarks/search_quality.py).
"""


@dataclass(frozen=True)
class Schedule:
    """Learning rates and update times of one search."""

    settings: SearchSettings
    steps: int
    """Weight steps per epoch."""

    @property
    def warmup_steps(self) -> int:
        """Number of weight steps in the warm-up."""
        return self.settings.warmup_epochs * self.steps

    @property
    def updates(self) -> int:
        """Number of updates in the whole search."""
        return self.settings.updates(self.steps)

    def weight_lr(self, epoch: int, step: int) -> float:
        """Learning rate of the weights; cosine decay in the warm-up, and again in the search."""
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
        """Step size of the multiplier of the objective `learnt`."""
        return self.settings.eta or 50 / max(1, self.updates)

    def is_update_turn(self, epoch: int, step: int) -> bool:
        """Whether an update follows this weight step (every `alpha_every` steps, across epochs)."""
        first_epoch = self.settings.warmup_epochs + self.settings.hold_epochs
        done = (epoch - first_epoch) * self.steps + step + 1
        return epoch >= first_epoch and done % self.settings.alpha_every == 0

    def scores_in(self, epoch: int) -> int:
        """Number of networks scored in an epoch without weight steps: one per update turn."""
        begun = (epoch - self.settings.warmup_epochs) * self.steps
        every = self.settings.alpha_every
        return (begun + self.steps) // every - begun // every

    def warmup_path(self, choices: list[int], seed: int, epoch: int, step: int) -> list[Choice]:
        """Path of a warm-up step; the same on all workers, without communication."""
        number = epoch * self.steps + step
        if self.settings.warmup_sampling == "fair":
            path = fair_path(choices, number, seed)
        else:
            path = uniform_path(choices, generator(seed, "path", epoch, step))
        chance = self._averaging_probability(number)
        if chance == 0:
            return list(path)
        coins = torch.rand(len(path), generator=generator(seed, "averaged sites", number))
        return [
            torch.full((k,), 1 / k) if coin < chance else choice
            for k, choice, coin in zip(choices, path, coins.tolist(), strict=True)
        ]

    def _averaging_probability(self, number: int) -> float:
        """Probability that a site averages all its ops in a step of the warm-up."""
        last = self.settings.op_warmup * self.warmup_steps
        return max(0.0, 1 - number / last) if last > 0 else 0.0


def search_cost(settings: SearchSettings, steps: int, choices: Sequence[int]) -> float:
    """Cost of a search, in units of a training step of one network on one batch.

    The backward pass is two thirds of a training step. In an update it costs as much as the forward
    pass, since no weight gradients are needed. A site that runs K ops counts as K times one with a
    single op, which slightly overestimates: stem and head run once. An update therefore costs

        two_path             1: two ops forward, one of them backward
        full_path            (K + 1) / 3: all ops forward, one of them backward
        darts                2 K / 3: the mixture, which its weight steps run as well, at K
        reinforce            samples / 3: forward alone
        random, evolution    one scored network: its batches, forward alone
        rl_trials            one network, trained for `trial_epochs` and scored

    A time limit (`max_hours`) and networks trained to measure the ranking are not counted.

    Args:
        settings: settings of the search.
        steps: weight steps per epoch.
        choices: number of candidate ops per site.
    """
    ops = sum(choices) / len(choices)
    weights = _weight_steps(settings, steps) * (ops if settings.strategy == "darts" else 1.0)
    averaged = settings.op_warmup / 2 * settings.warmup_epochs * steps * (ops - 1)
    if settings.strategy in (
        "darts",
        "rl_trials",
    ):  # darts runs all ops anyway, rl_trials has no warm-up
        averaged = 0.0
    return weights + averaged + settings.updates(steps) * _update_cost(settings, steps, ops)


def _weight_steps(settings: SearchSettings, steps: int) -> int:
    if settings.strategy == "rl_trials":
        return 0
    is_fixed = settings.strategy in ("random", "evolution")
    return steps * (settings.warmup_epochs if is_fixed else settings.total_epochs)


def _update_cost(settings: SearchSettings, steps: int, ops: float) -> float:
    """Cost of one update, in training steps."""
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
    """Learning rate of the architecture parameters for a search with this many updates.

    A rate that suits many updates changes nothing in a few. The rate follows a power law through
    1e-3 for 115,000 updates (published) and 0.05 for 600, up to 0.1.
    """
    return min(LARGEST_ALPHA_LR, 0.05 * math.pow(600 / max(1, updates), ALPHA_LR_EXPONENT))


def scaled_warmup_lr(steps: int) -> float:
    """Learning rate of the weights for a warm-up of this many steps.

    Short warm-ups learn too little at the published rate. The rate follows a power law through 0.05
    for 192,000 steps (published) and 0.1 for 1,600, up to 0.1.
    """
    return min(LARGEST_WARMUP_LR, 0.05 * math.pow(192_000 / max(1, steps), WARMUP_LR_EXPONENT))
