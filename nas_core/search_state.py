"""State of a search, and the objects it works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch

from nas_core.batch import SearchData
from nas_core.gradient_strategies import Darts, FullPath, Reinforce, TwoPath
from nas_core.objective import LatencyGoal
from nas_core.precision import Precision, no_scaler, precision_of
from nas_core.progress import Progress
from nas_core.sampling_strategies import Evolution, Random, RLTrials
from nas_core.schedule import Schedule
from nas_core.search_settings import SearchSettings
from nas_core.strategy import ScoredNetwork, Strategy
from nas_core.supernet import Supernet
from nas_core.workers import ProcessGroup

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "two_path": TwoPath,
    "full_path": FullPath,
    "reinforce": Reinforce,
    "darts": Darts,
    "random": Random,
    "evolution": Evolution,
    "rl_trials": RLTrials,
}


@dataclass
class SearchState(Progress):
    """State of a search: everything that is needed to resume it. Epochs include the warm-up."""

    supernet: Supernet
    weight_optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler = field(default_factory=no_scaler)
    alpha_steps: int = 0
    """Number of updates made."""
    baseline: float | None = None
    """Moving average of rewards (`reinforce`, `rl_trials`)."""
    multiplier: float = 0.0
    """Multiplier of the objective `learnt`."""
    trials: list[ScoredNetwork] = field(default_factory=list)
    """Networks scored so far (`random`, `evolution`, `rl_trials`)."""


@dataclass(frozen=True)
class Search:
    """A search: its state, data, goal, settings, seed and process group."""

    state: SearchState
    data: SearchData
    goal: LatencyGoal | None
    """None if the search ends after the warm-up, which does not depend on hardware."""
    settings: SearchSettings
    seed: int
    group: ProcessGroup

    @property
    def needed_goal(self) -> LatencyGoal:
        """The goal; to be used after the warm-up only."""
        assert self.goal is not None, "a search has a goal after its warm-up"
        return self.goal

    @property
    def last_epoch(self) -> int:
        """Number of the epoch at which the search ends."""
        settings = self.settings
        return settings.warmup_epochs if self.goal is None else settings.total_epochs

    @cached_property
    def schedule(self) -> Schedule:
        """Learning rates, paths and turns of updates."""
        return Schedule(self.settings, self.data.weight.steps)

    @cached_property
    def precision(self) -> Precision:
        """Number format of its steps, on the device of the supernet."""
        return precision_of(self.settings, self.state.supernet.alphas()[0].device)

    @cached_property
    def strategy(self) -> Strategy:
        """Variant of the method that finds architectures; it has no state of its own."""
        return STRATEGIES[self.settings.strategy]()

    @property
    def is_warm_up(self) -> bool:
        """Whether the current epoch belongs to the warm-up."""
        return self.state.epoch < self.settings.warmup_epochs
