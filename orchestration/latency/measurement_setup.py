"""Settings of one measurement run: the space, the target, how to measure, and the node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.hardware import Target
from cluster.placement import Node
from cluster.runtimes.throttling import check_throttling
from cluster.runtimes.timing import Timing
from nas_core.settings import MeasureSettings
from nas_core.space import SearchSpace
from orchestration.programs.compile_workers import Subject, lower
from orchestration.programs.timing_workers import timed


@dataclass(frozen=True)
class MeasurementSetup:
    """Space, target, settings and node of a measurement."""

    space: SearchSpace
    target: Target
    settings: MeasureSettings
    node: Node

    def timed_with_empty(self, subjects: Sequence[Subject], rounds: int) -> list[Timing]:
        """Time subjects and, last, an empty call in interleaved rounds. Overhead is included."""
        programs = lower(self.space, self.target, [*subjects, None])
        timings = timed(programs, self.target, self.settings, rounds, self.node)
        if self.target.device == "android":
            check_throttling(timings[:-1], self.target.name)  # the empty call is mostly noise
        return timings
