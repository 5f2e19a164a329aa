"""Pareto fronts of accuracy against latency: interpolation, and comparison of two.

A front is interpolated linearly in the logarithm of the latency. Nothing is extrapolated beyond
the measured latencies and accuracies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log

from orchestration.reports.results import pareto_front


@dataclass(frozen=True)
class Network:
    """Latency and accuracy of a network."""

    ms: float
    top1: float
    """Percent."""


@dataclass(frozen=True)
class Front:
    """The Pareto front of some networks."""

    networks: tuple[Network, ...]
    """Networks on the front, the fastest first."""
    slowest_ms: float
    """Latency of the slowest network, also if it is not on the front: up to it the front is flat
    beyond its last network."""

    @classmethod
    def of(cls, networks: Sequence[Network]) -> Front:
        """Front of one or more networks."""
        on_front = pareto_front(networks, lambda network: (network.ms, network.top1))
        return cls(tuple(on_front), max(network.ms for network in networks))

    def top1_at(self, ms: float) -> float | None:
        """Accuracy within a latency; None outside the measured range."""
        if not self.networks[0].ms <= ms <= self.slowest_ms:
            return None
        before = [network for network in self.networks if network.ms <= ms][-1]
        behind = next((network for network in self.networks if network.ms > ms), None)
        if behind is None:
            return before.top1
        share = log(ms / before.ms) / log(behind.ms / before.ms)
        return before.top1 + share * (behind.top1 - before.top1)

    def ms_at(self, top1: float) -> float | None:
        """Latency at which an accuracy is reached; None outside the measured range."""
        if not self.networks[0].top1 <= top1 <= self.networks[-1].top1:
            return None
        behind = next(network for network in self.networks if network.top1 >= top1)
        before = [network for network in self.networks if network.top1 <= top1][-1]
        if before == behind:
            return before.ms
        share = (top1 - before.top1) / (behind.top1 - before.top1)
        return before.ms * exp(share * log(behind.ms / before.ms))

    def ms_for(self, top1: float) -> float:
        """Latency at which an accuracy is reached that is not above the front.

        If the fastest network is more accurate than asked, its latency is returned. That is an
        upper bound: faster networks were not measured.
        """
        return self.ms_at(top1) or self.networks[0].ms

    def starts_above(self, top1: float) -> bool:
        """Whether the fastest network is more accurate, so that `ms_for` is an upper bound."""
        return self.networks[0].top1 > top1


def highest_of_all(fronts: Iterable[Front]) -> float:
    """Highest accuracy that all fronts reach."""
    return min(front.networks[-1].top1 for front in fronts)


def speed_up(ours: Front, theirs: Front, below: float = 0.0) -> float:
    """Speed-up of `ours` at the highest accuracy that both reach, less `below` points."""
    top1 = highest_of_all((ours, theirs)) - below
    return theirs.ms_for(top1) / ours.ms_for(top1)
