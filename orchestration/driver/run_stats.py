"""Statistics of a run of a job: steps and time by phase, idle time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class RunStats:
    """Accumulates the reports of cases."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}
        """Weight steps by phase, including steps repeated after a failure."""
        self.seconds: dict[str, float] = {}
        """Total seconds of epochs by phase, summed over cases."""
        self.measured_s = 0.0
        """Seconds outside training: start of Ray, latency tables, cross-target evaluation."""
        self.networks = 0
        """Number of networks to make."""
        self._spans: list[tuple[float, float]] = []
        self._timed: list[tuple[float, float]] = []

    def __call__(self, _case: str, record: Mapping[str, Any]) -> None:
        """Count an epoch."""
        if "steps" not in record:
            return
        phase, end, seconds = record["phase"], record["time"], record["seconds"]
        self.steps[phase] = self.steps.get(phase, 0) + record["steps"]
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        self._spans.append((end - seconds, end))

    def timed(self, spans: Iterable[tuple[float, float]]) -> None:
        """Add time spans in which programs were timed, as (begin, end)."""
        self._timed += spans

    def stepping_s(self) -> float:
        """Time in which at least one case trained, seconds."""
        return _union_s(self._spans)

    def busy_s(self) -> float:
        """Time in which at least one case trained or a program was timed, seconds."""
        return _union_s([*self._spans, *self._timed])

    def to_dict(self, wall_s: float) -> dict[str, Any]:
        """JSON values; `wall_s` is the time of the run."""
        idle_s = max(0.0, wall_s - self.stepping_s() - self.measured_s)
        return {
            "wall_s": wall_s,
            "measured_s": self.measured_s,
            "networks": self.networks,
            "idle_s": idle_s,
            "idle_share": idle_s / wall_s if wall_s else 0.0,
            "busy_s": self.busy_s(),
            "steps": self.steps,
            "seconds": self.seconds,
        }


def _union_s(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that are covered by at least one of the spans."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
