"""Accuracy against latency: Pareto fronts, read between their networks, and what is between two.

A front is read along straight lines over the logarithm of the latency. It says nothing outside the
latencies and accuracies that were measured: no value is extrapolated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log

from orchestration.reports.results import pareto_front


@dataclass(frozen=True)
class Network:
    """What a network takes and reaches."""

    ms: float
    top1: float
    """Percent."""


@dataclass(frozen=True)
class Front:
    """The Pareto front of some networks."""

    networks: tuple[Network, ...]
    """Those on the front, the fastest first."""
    slowest_ms: float
    """Of all: up to there the front is flat behind its last network."""

    @classmethod
    def of(cls, networks: Sequence[Network]) -> Front:
        """Of one network or more."""
        on_front = pareto_front(networks, lambda one: (one.ms, one.top1))
        return cls(tuple(on_front), max(one.ms for one in networks))

    def top1_at(self, ms: float) -> float | None:
        """Accuracy that is to be had within a latency; None where nothing was measured."""
        if not self.networks[0].ms <= ms <= self.slowest_ms:
            return None
        before = [one for one in self.networks if one.ms <= ms][-1]
        behind = next((one for one in self.networks if one.ms > ms), None)
        if behind is None:
            return before.top1
        share = log(ms / before.ms) / log(behind.ms / before.ms)
        return before.top1 + share * (behind.top1 - before.top1)

    def ms_at(self, top1: float) -> float | None:
        """Latency at which an accuracy is to be had; None where nothing was measured."""
        if not self.networks[0].top1 <= top1 <= self.networks[-1].top1:
            return None
        behind = next(one for one in self.networks if one.top1 >= top1)
        before = [one for one in self.networks if one.top1 <= top1][-1]
        if before == behind:
            return before.ms
        share = (top1 - before.top1) / (behind.top1 - before.top1)
        return before.ms * exp(share * log(behind.ms / before.ms))

    def ms_for(self, top1: float) -> float:
        """The same of an accuracy that it reaches. Where its fastest network reaches more, that one
        is taken: the front says nothing of faster ones, and they would only be faster."""
        return self.ms_at(top1) or self.networks[0].ms

    def starts_above(self, top1: float) -> bool:
        """Whether its fastest network is more accurate, and stands for faster ones not measured."""
        return self.networks[0].top1 > top1


def highest_of_all(fronts: Iterable[Front]) -> float:
    """The highest accuracy that each of them reaches."""
    return min(one.networks[-1].top1 for one in fronts)


def speed_up(ours: Front, theirs: Front, below: float = 0.0) -> float:
    """How many times faster ours is at the highest accuracy that both reach, or points below."""
    top1 = highest_of_all((ours, theirs)) - below
    return theirs.ms_for(top1) / ours.ms_for(top1)
