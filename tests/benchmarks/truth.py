"""Ground truth of the tabular benchmark, and scores of a network against it.

Accuracies are means over seeds of networks trained alone, in percent of the test images; latencies
are those of the latency table. The ground truth is an estimate from few noisy trainings, so a score
can be compared with its ceiling: the score of the best network on one seed, by the other seeds.
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
"""Networks that take this share of a budget or more count as equal in latency."""


@dataclass(frozen=True)
class Interval:
    """Mean of differences with its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    number: int

    @property
    def can_be_told(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def paired(differences: Sequence[float]) -> Interval:
    """Mean and Student's 95 % interval of paired differences.

    Raises:
        ValueError: there are fewer than two.
    """
    from scipy.special import stdtrit  # scipy.stats takes two seconds to import

    number = len(differences)
    if number < 2:
        raise ValueError(f"{number} differences have no spread; expected two or more")
    half = float(stdtrit(number - 1, 0.975)) * stdev(differences) / number**0.5
    mean = fmean(differences)
    return Interval(mean, mean - half, mean + half, number)


@dataclass(frozen=True)
class Truth:
    """Accuracy and latency of every network of a space on one target."""

    accuracy: Tensor
    """Top-1 in percent, shape (N, S); NaN if a network was not trained from a seed."""
    latency_ms: Tensor
    """Latency in milliseconds, shape (N,)."""

    def first(self, seeds: int) -> Truth:
        """Ground truth from the first seeds only, which every network was trained from."""
        return Truth(self.accuracy[:, :seeds], self.latency_ms)

    def mean(self) -> Tensor:
        """Mean accuracy over the seeds of each network, shape (N,)."""
        return self.accuracy.nanmean(1)

    def feasible(self, budget_ms: float) -> Tensor:
        """Mask of the networks that keep a budget, shape (N,)."""
        return self.latency_ms <= budget_ms

    def near(self, budget_ms: float) -> Tensor:
        """Mask of the networks that take NEAR to 1 times a budget, shape (N,)."""
        return self.feasible(budget_ms) & (self.latency_ms >= NEAR * budget_ms)

    def regret(self, network: int, budget_ms: float) -> float:
        """Points by which the best feasible network is better; 0 for that one."""
        means = self.mean()
        return float(means[self.feasible(budget_ms)].max() - means[network])

    def rank(self, network: int, budget_ms: float) -> float:
        """Share of the feasible networks that are better, 0 to 1."""
        return _share_above(self.mean(), network, self.feasible(budget_ms))

    def rank_ceiling(self, budget_ms: float) -> float:
        """Rank on the other seeds of the best network on one seed, mean over seeds."""
        allowed = self.feasible(budget_ms)
        result = []
        for seed in range(self.accuracy.shape[1]):
            known = self.accuracy[:, seed].clone()
            known[~allowed | known.isnan()] = -1.0
            rest = torch.cat([self.accuracy[:, :seed], self.accuracy[:, seed + 1 :]], 1).nanmean(1)
            result.append(_share_above(rest, int(known.argmax()), allowed & ~rest.isnan()))
        return fmean(result)

    def best_of(self, number: int, budget_ms: float, draws: int = 10_000) -> float:
        """Mean accuracy of the best of `number` random feasible networks, chosen on one seed.

        It is scored on the other seeds, so that the luck of the choice does not count.
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
    """Ground truth on a target. Latencies come from the latency table, which a search sees."""
    import pandas

    from tests.benchmarks import tabular

    frame = pandas.read_parquet(tabular.place(".parquet"))
    by_seed = frame.pivot_table(index="path", columns="seed", values="top1")
    accuracy = torch.tensor(by_seed.reindex(tabular.names()).to_numpy())
    table, _ = tabular.latency(target)
    networks = map(tabular.network_of, tabular.all_paths())
    times_ms = [table.latency_ms(network) for network in networks]
    return Truth(accuracy, torch.tensor(times_ms, dtype=torch.float64))


@dataclass(frozen=True)
class Signal:
    """Spread across networks of equal latency, and across trainings of one network."""

    networks: float
    """Standard deviation across networks of equal latency, points, without the noise of seeds."""
    seeds: float
    """Standard deviation across the seeds of a network, points."""

    @property
    def ratio(self) -> float:
        """Signal-to-noise ratio; a benchmark needs at least 2."""
        return self.networks / self.seeds

    def __str__(self) -> str:
        points = f"{self.networks:.2f} points across networks, {self.seeds:.2f} across seeds"
        return f"{points}: {self.ratio:.2f} to 1"


def signal(truth: Truth, neighbours: int = 20) -> Signal:
    """Signal and noise over the whole latency range.

    A network is compared with its neighbours in latency, so that differences that latency explains
    do not count as signal.
    """
    seeds = int((~truth.accuracy.isnan()).sum(1).min())
    within = float(_variance(truth.accuracy).mean())
    means = truth.mean()[truth.latency_ms.argsort()]
    windows = means.unfold(0, neighbours + 1, 1)
    across = float(windows.var(1).mean()) - within / seeds
    return Signal(max(0.0, across) ** 0.5, within**0.5)


def signal_near(truth: Truth, budget_ms: float) -> Signal:
    """Signal and noise among the networks near a budget, see `Truth.near`."""
    among = truth.accuracy[truth.near(budget_ms)]
    within = float(_variance(among).mean())
    across = float(among.nanmean(1).var()) - within / among.shape[1]
    return Signal(max(0.0, across) ** 0.5, within**0.5)


def _variance(accuracy: Tensor) -> Tensor:
    """Unbiased variance over the seeds of each network, shape (N, S) to (N,)."""
    count = (~accuracy.isnan()).sum(1)
    away = (accuracy - accuracy.nanmean(1, keepdim=True)).square().nansum(1)
    return away / (count - 1)
