"""Objectives: how accuracy and latency are combined into one number.

An objective has two methods: `loss`, of cross entropy and expected latency, for strategies that
follow gradients, and `reward`, of the accuracy and latency of one network, for strategies that
score sampled networks. `alpha_step.py` adds `loss` to the loss of an update.
E = expected latency, T = budget, both in milliseconds.

    name         loss                              reward
    none         CE                                acc
    mul_log      a * CE * (log E / log T)**b       acc * (log T / log latency)**b    (ProxylessNAS)
    add_linear   CE + b * (E / T - 1)              acc - b * (latency / T - 1)       (ProxylessNAS)
    absolute     CE + b * |E / T - 1|              acc - b * |latency / T - 1|       (TuNAS)
    power        CE * (E / T)**b                   acc * (T / latency)**b            (MnasNet)
    learnt       CE + m * d + rho * q(d)           acc - m * d - rho * q(d),  d = log(E / T)

`learnt` is an augmented Lagrangian of E = T. Its multiplier m is learnt with the architecture:
`m += eta * d` after each update. It meets the budget however much the loss gains from latency,
while the strength of the others is fixed by b. In rewards too, d is that of the expected latency,
whose gradient is known exactly. Near the budget d is E / T - 1 and q is d**2 / 2. A search may
start at many times the budget if single ops are very slow. The logarithm, a q that grows linearly
far from the budget, and a bound of `eta * 0.1` on the change of m then keep the large first
gradients out of Adam's memory and m from winding up. (With d = E / T - 1 and a square, searches of
102 updates that began at five times the budget ended 20 to 40 % below it.)
Objectives depend on E / T only, so the unit does not matter. The exception is `mul_log`, which
takes logarithms of milliseconds and is rejected unless they are above 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_core.latency import LatencyTable, expected_latency_ms
from nas_core.search_settings import SearchSettings

MISS = 0.1
"""Relative distance from the budget above which a search has missed it."""


class LatencyGoal:
    """A latency budget on a target, with the costs of the space as tensors."""

    def __init__(self, table: LatencyTable, budget_ms: float, device: torch.device) -> None:
        self.table = table
        self.costs = table.costs_ms(table.space)
        """Milliseconds of every op at every site."""
        self.costs_ms = [torch.tensor(row, device=device) for row in self.costs]
        self.fixed_ms = table.fixed_ms(table.space)
        self.budget_ms = budget_ms

    def expected_ms(self, probs: list[Tensor]) -> Tensor:
        """Expected latency, differentiable in `probs`."""
        return expected_latency_ms(probs, self.costs_ms, self.fixed_ms)

    def path_ms(self, path: list[int]) -> float:
        """Latency of one network according to the table."""
        chosen = (row[choice] for row, choice in zip(self.costs, path, strict=True))
        return sum(chosen, start=self.fixed_ms)


class Objective(Protocol):
    """A way to combine accuracy and latency into one number."""

    @property
    def exact_latency(self) -> bool:
        """Whether strategies that score sampled networks add the exact gradient of the expected
        latency, instead of a latency term in the reward.
        """
        ...

    def loss(self, cross_entropy: Tensor, expected_ms: Tensor, budget_ms: float) -> Tensor:
        """Scalar to minimize, differentiable in both tensors."""
        ...

    def reward(self, accuracy: float, latency_ms: float, budget_ms: float) -> float:
        """Value of one network, to be maximized; accuracy from 0 to 1."""
        ...

    def next_multiplier(self, expected_ms: float, budget_ms: float, eta: float) -> float:
        """Value of the multiplier after an update; 0 for objectives without one."""
        ...


@dataclass(frozen=True)
class Accuracy:
    """`none`: latency is ignored."""

    exact_latency = False

    def loss(self, cross_entropy: Tensor, expected_ms: Tensor, budget_ms: float) -> Tensor:
        """Cross entropy."""
        return cross_entropy + 0 * expected_ms

    def reward(self, accuracy: float, latency_ms: float, budget_ms: float) -> float:
        """Accuracy."""
        return accuracy

    def next_multiplier(self, expected_ms: float, budget_ms: float, eta: float) -> float:
        """Return 0: there is no multiplier."""
        return 0.0


@dataclass(frozen=True)
class MulLog(Accuracy):
    """a * CE * (log E / log T)**b, published with a = .2, b = .3; milliseconds above 1."""

    exponent: float = 0.3
    factor: float = 0.2

    def loss(self, cross_entropy: Tensor, expected_ms: Tensor, budget_ms: float) -> Tensor:
        """a * CE * (log E / log T)**b; depends on the unit."""
        ratio = expected_ms.log() / math.log(budget_ms)
        return self.factor * cross_entropy * ratio.pow(self.exponent)

    def reward(self, accuracy: float, latency_ms: float, budget_ms: float) -> float:
        """acc * (log T / log latency)**b."""
        return accuracy * math.pow(math.log(budget_ms) / math.log(latency_ms), self.exponent)


@dataclass(frozen=True)
class AddLinear(Accuracy):
    """CE + b * (E / T - 1), published with b = .1; rewards latencies below the budget as well."""

    strength: float = 0.1

    def loss(self, cross_entropy: Tensor, expected_ms: Tensor, budget_ms: float) -> Tensor:
        """CE + b * (E / T - 1)."""
        return cross_entropy + self.strength * (expected_ms / budget_ms - 1)

    def reward(self, accuracy: float, latency_ms: float, budget_ms: float) -> float:
        """acc - b * (latency / T - 1)."""
        return accuracy - self.strength * (latency_ms / budget_ms - 1)


@dataclass(frozen=True)
class Absolute(Accuracy):
    """CE + b * |E / T - 1|: pulls towards the budget from both sides (TuNAS: b = .1)."""

    strength: float = 0.1

    def loss(self, cross_entropy: Tensor, expected_ms: Tensor, budget_ms: float) -> Tensor:
        """CE + b * |E / T - 1|."""
        return cross_entropy + self.strength * (expected_ms / budget_ms - 1).abs()

    def reward(self, accuracy: float, latency_ms: float, budget_ms: float) -> float:
        """acc - b * |latency / T - 1|."""
        return accuracy - self.strength * abs(latency_ms / budget_ms - 1)


@dataclass(frozen=True)
class Power(Accuracy):
    """acc * (T / latency)**w with w = .07 (MnasNet), and the corresponding loss."""

    exponent: float = 0.07

    def loss(self, cross_entropy: Tensor, expected_ms: Tensor, budget_ms: float) -> Tensor:
        """CE * (E / T)**w."""
        return cross_entropy * (expected_ms / budget_ms).pow(self.exponent)

    def reward(self, accuracy: float, latency_ms: float, budget_ms: float) -> float:
        """acc * (T / latency)**w."""
        return accuracy * math.pow(budget_ms / latency_ms, self.exponent)


@dataclass(frozen=True)
class Learnt(Accuracy):
    """Augmented Lagrangian of E = T, with bounded gradients far from the budget."""

    rho: float = 10.0
    multiplier: float = 0.0
    exact_latency = True

    knee = 0.2
    """Value of |d| above which the penalty is linear."""
    largest_step = 0.1
    """Largest |d| used to update the multiplier."""

    def loss(self, cross_entropy: Tensor, expected_ms: Tensor, budget_ms: float) -> Tensor:
        """CE + m * d + rho * q(d), d = log(E / T); q = d**2 / 2, |d| / 5 - 1/50 beyond 1/5."""
        d = (expected_ms / budget_ms).log()
        q = F.huber_loss(d, torch.zeros_like(d), reduction="sum", delta=self.knee)
        return cross_entropy + self.multiplier * d + self.rho * q

    def next_multiplier(self, expected_ms: float, budget_ms: float, eta: float) -> float:
        """m + eta * d, d between -0.1 and 0.1."""
        d = math.log(expected_ms / budget_ms)
        return self.multiplier + eta * max(-self.largest_step, min(self.largest_step, d))


def _with_strength(make: Callable[[float], Objective], published: float) -> Maker:
    return lambda settings, _: make(published if settings.beta is None else settings.beta)


Maker = Callable[[SearchSettings, float], Objective]

OBJECTIVES: dict[str, Maker] = {
    "none": lambda _settings, _multiplier: Accuracy(),
    "mul_log": _with_strength(MulLog, 0.3),
    "add_linear": _with_strength(AddLinear, 0.1),
    "absolute": _with_strength(Absolute, 0.1),
    "power": _with_strength(Power, 0.07),
    "learnt": lambda settings, multiplier: Learnt(settings.rho, multiplier),
}


def objective_of(settings: SearchSettings, multiplier: float = 0.0) -> Objective:
    """The objective of a search, with the current value of its multiplier."""
    return OBJECTIVES[settings.objective_name](settings, multiplier)


def check_goal(settings: SearchSettings, fastest_ms: float, budget_ms: float) -> None:
    """Reject a budget for which the objective is undefined.

    Raises:
        ValueError: the objective is `mul_log`, and the budget or the fastest network is at 1 ms
            or less.
    """
    if settings.objective_name == "mul_log" and min(fastest_ms, budget_ms) <= 1:
        raise ValueError(
            f"objective 'mul_log' takes logarithms of milliseconds, but the budget is "
            f"{budget_ms:.4g} ms and the fastest network takes {fastest_ms:.4g} ms; both must be "
            "above 1 ms, or take objective 'learnt', which depends on no unit"
        )


def missed(expected_ms: float, budget_ms: float) -> bool:
    """Whether the expected latency at the end of a search is more than 10 % from the budget."""
    return abs(expected_ms / budget_ms - 1) > MISS
