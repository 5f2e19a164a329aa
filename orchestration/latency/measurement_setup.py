"""Settings of one measurement run: the space, the target, how to measure, and the node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.hardware import Target
from cluster.placement import Node
from cluster.runtimes.throttling import check_throttling
from cluster.runtimes.timing import Timing
from nas_core.settings import MeasureSettings
from nas_core.space import SearchSpace
from orchestration.programs.compile_workers import Subject, lower
from orchestration.programs.timing_workers import Program, timed


@dataclass(frozen=True)
class MeasurementSetup:
    """Space, target, settings and node of a measurement."""

    space: SearchSpace
    target: Target
    settings: MeasureSettings
    node: Node
    _programs: dict[Subject, Program] = field(default_factory=dict, repr=False)
    """Programs so far. Lowering takes thirty times as long as timing."""

    def programs(self, subjects: Sequence[Subject]) -> list[Program]:
        """Programs of subjects. Each subject is lowered once.

        Raises:
            ProgramError: a subject cannot be lowered.
        """
        missing = [subject for subject in dict.fromkeys(subjects) if subject not in self._programs]
        if missing:
            lowered = lower(self.space, self.target, missing)
            self._programs.update(zip(missing, lowered, strict=True))
        return [self._programs[subject] for subject in subjects]

    def timed_with_empty(self, subjects: Sequence[Subject], rounds: int) -> list[Timing]:
        """Time subjects and, last, an empty call in interleaved rounds. Overhead is included."""
        programs = self.programs([*subjects, None])
        timings = timed(programs, self.target, self.settings, rounds, self.node)
        if self.target.device == "android":
            check_throttling(timings[:-1], self.target.name)  # the empty call is mostly noise
        return timings
