"""What is known of every network of a yardstick, and how a found one is scored against it.

Accuracies are means over seeds of networks that were trained alone, in percent of the test images;
latencies are of whole networks. Every score is an estimate from few noisy trainings, so each has
its ceiling beside it: what would be reached by who knows one half of the seeds.
Shapes: N networks, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import Tensor

from nas_core.randomness import generator

NEAR = 0.9
"""Networks of this part of a budget, to all of it, are at equal latency."""


@dataclass(frozen=True)
class Interval:
    """A mean of differences and where the true one is with 95 % confidence."""

    mean: float
    low: float
    high: float
    number: int

    @property
    def can_be_told(self) -> bool:
        """Whether it excludes zero."""
        return self.low > 0 or self.high < 0


def paired(differences: Sequence[float]) -> Interval:
    """By Student's distribution, of differences that belong together in pairs.

    Raises:
        ValueError: there are fewer than two.
    """
    from scipy.stats import t

    number = len(differences)
    if number < 2:
        raise ValueError(f"{number} differences have no spread; expected two or more")
    half = float(t.ppf(0.975, number - 1)) * stdev(differences) / number**0.5
    mean = fmean(differences)
    return Interval(mean, mean - half, mean + half, number)


@dataclass(frozen=True)
class Truth:
    """Every network of a space on one target."""

    accuracy: Tensor
    """(N, S), percent; not a number where a network was not trained from a seed."""
    latency_ms: Tensor
    """(N,)."""

    def first(self, seeds: int) -> Truth:
        """What the first seeds say, of which every network has all."""
        return Truth(self.accuracy[:, :seeds], self.latency_ms)

    def mean(self) -> Tensor:
        """(N,): over the seeds that there are."""
        return self.accuracy.nanmean(1)

    def feasible(self, budget_ms: float) -> Tensor:
        """(N,): which networks keep a budget."""
        return self.latency_ms <= budget_ms

    def near(self, budget_ms: float) -> Tensor:
        """(N,): which networks are at equal latency: within the last tenth of a budget."""
        return self.feasible(budget_ms) & (self.latency_ms >= NEAR * budget_ms)

    def regret(self, network: int, budget_ms: float) -> float:
        """Points from the best feasible network; 0 for that one."""
        means = self.mean()
        return float(means[self.feasible(budget_ms)].max() - means[network])

    def rank(self, network: int, budget_ms: float) -> float:
        """Share of the feasible networks that are better, 0 to 1."""
        return _share_above(self.mean(), network, self.feasible(budget_ms))

    def rank_ceiling(self, budget_ms: float) -> float:
        """Rank that the winner on one seed has on the others, mean over seeds."""
        allowed = self.feasible(budget_ms)
        found = []
        for seed in range(self.accuracy.shape[1]):
            known = self.accuracy[:, seed].clone()
            known[~allowed | known.isnan()] = -1.0
            rest = torch.cat([self.accuracy[:, :seed], self.accuracy[:, seed + 1 :]], 1).nanmean(1)
            found.append(_share_above(rest, int(known.argmax()), allowed & ~rest.isnan()))
        return fmean(found)

    def best_of(self, number: int, budget_ms: float, draws: int = 10_000) -> float:
        """Accuracy of the best of so many random feasible networks, chosen on one seed.

        It is scored on the other seeds: the mean over draws, without the luck of the choice.
        """
        among = self.feasible(budget_ms).nonzero().flatten()
        rng = generator(0, "best of random", number)
        drawn = among[torch.randint(len(among), (draws, number), generator=rng)]
        seed = torch.randint(self.accuracy.shape[1], (draws, 1), generator=rng)
        known = self.accuracy[drawn, seed].nan_to_num(-1.0)
        winner = drawn.gather(1, known.argmax(1, keepdim=True))
        others = self.accuracy[winner[:, 0]].clone()
        others.scatter_(1, seed, float("nan"))
        return float(others.nanmean(1).nanmean())


def _share_above(means: Tensor, network: int, among: Tensor) -> float:
    return float((means[among] > means[network]).double().mean())


def truth_of(target: str) -> Truth:
    """The yardstick on a target. Latencies are those of the latency table, which a search sees."""
    import pandas

    from tests.benchmarks import yardstick

    frame = pandas.read_parquet(yardstick.place(".parquet"))
    by_seed = frame.pivot_table(index="path", columns="seed", values="top1")
    accuracy = torch.tensor(by_seed.reindex(yardstick.names()).to_numpy())
    table, _ = yardstick.latency(target)
    networks = map(yardstick.network_of, yardstick.all_paths())
    times_ms = [table.latency_ms(network) for network in networks]
    return Truth(accuracy, torch.tensor(times_ms, dtype=torch.float64))


@dataclass(frozen=True)
class Signal:
    """How far networks differ at equal latency, against how far trainings of one differ."""

    networks: float
    """Standard deviation across networks at equal latency, points, without the noise of seeds."""
    seeds: float
    """Standard deviation across the seeds of a network, points."""

    @property
    def ratio(self) -> float:
        """At least 2 makes a yardstick."""
        return self.networks / self.seeds

    def __str__(self) -> str:
        points = f"{self.networks:.2f} points across networks, {self.seeds:.2f} across seeds"
        return f"{points}: {self.ratio:.2f} to 1"


def signal(truth: Truth, neighbours: int = 20) -> Signal:
    """Signal and noise of a yardstick.

    A network is compared with the mean of its neighbours in latency, so that what latency explains
    is no signal.
    """
    seeds = int((~truth.accuracy.isnan()).sum(1).min())
    within = float(_variance(truth.accuracy).mean())
    means = truth.mean()[truth.latency_ms.argsort()]
    windows = means.unfold(0, neighbours + 1, 1)
    across = float(windows.var(1).mean()) - within / seeds
    return Signal(max(0.0, across) ** 0.5, within**0.5)


def signal_near(truth: Truth, budget_ms: float) -> Signal:
    """The same among the networks within the last tenth of a budget."""
    among = truth.accuracy[truth.near(budget_ms)]
    within = float(_variance(among).mean())
    across = float(among.nanmean(1).var()) - within / among.shape[1]
    return Signal(max(0.0, across) ** 0.5, within**0.5)


def _variance(accuracy: Tensor) -> Tensor:
    """(N, S) -> (N,): unbiased, over the seeds that there are."""
    count = (~accuracy.isnan()).sum(1)
    away = (accuracy - accuracy.nanmean(1, keepdim=True)).square().nansum(1)
    return away / (count - 1)
