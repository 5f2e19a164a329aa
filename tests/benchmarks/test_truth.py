"""Scores against ground truth, on made-up data with known answers."""

from __future__ import annotations

import pytest
import torch

from nas_core.randomness import generator
from tests.benchmarks.truth import Truth, paired, signal

NAN = float("nan")
FIVE = Truth(
    accuracy=torch.tensor([[70.0, 72], [80, 78], [75, 75], [90, 92], [60, 62]]),
    latency_ms=torch.tensor([1.0, 2.0, 1.95, 3.0, 0.5]),
)


def test_regret_and_rank_are_among_feasible_networks() -> None:
    assert FIVE.regret(1, budget_ms=2.0) == 0.0
    assert FIVE.regret(0, budget_ms=2.0) == pytest.approx(8.0)
    assert FIVE.rank(1, budget_ms=2.0) == 0.0
    assert FIVE.rank(0, budget_ms=2.0) == 0.5  # two of four are better
    assert FIVE.rank(1, budget_ms=3.0) == pytest.approx(0.2)


def test_networks_at_equal_latency_are_in_the_last_tenth_of_a_budget() -> None:
    assert FIVE.near(2.0).tolist() == [False, True, True, False, False]


def test_the_winner_on_one_seed_is_ranked_on_the_others() -> None:
    # On either seed the second is best among the feasible, and on the other it is, too.
    assert FIVE.rank_ceiling(2.0) == 0.0
    split = Truth(torch.tensor([[9.0, 1], [5, 5], [1, 9]]), torch.ones(3))
    assert split.rank_ceiling(1.0) == pytest.approx(2 / 3)  # each winner is last on the other


def test_the_best_of_many_is_the_best_and_of_one_the_mean() -> None:
    assert FIVE.best_of(200, 2.0, draws=500) == pytest.approx(79, abs=0.15)
    assert FIVE.best_of(1, 2.0) == pytest.approx((71 + 79 + 75 + 61) / 4, abs=0.2)


def test_the_luck_of_a_choice_is_not_in_its_score() -> None:
    """The best of ten is no better than one, for networks that differ by noise alone."""
    noise = torch.randn(300, 2, generator=generator(0, "noise"))
    truth = Truth(70 + noise, torch.ones(300))
    assert truth.best_of(10, 1.0) == pytest.approx(70, abs=0.15)


def test_a_seed_that_is_missing_counts_nowhere() -> None:
    some = Truth(torch.tensor([[70.0, 72, NAN], [80, 78, 88]]), torch.ones(2))
    assert some.mean().tolist() == pytest.approx([71, 82])
    assert some.rank(0, 1.0) == 0.5


@pytest.mark.parametrize("true", [0.5, 2.0])
def test_signal_and_noise_are_told_apart(true: float) -> None:
    rng = generator(1, "signal")
    latency = torch.rand(400, generator=rng) * 3 + 1
    networks = true * torch.randn(400, 1, generator=rng)
    accuracy = 70 + 5 * latency.log()[:, None] + networks + torch.randn(400, 2, generator=rng)
    result = signal(Truth(accuracy, latency))
    assert result.seeds == pytest.approx(1.0, rel=0.1)
    assert result.networks == pytest.approx(true, rel=0.15, abs=0.1)


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = torch.randn(400, 5, generator=generator(0, "intervals")) + 0.3
    result = [paired(row.tolist()) for row in draws]
    assert 0.92 < sum(item.low <= 0.3 <= item.high for item in result) / 400 < 0.98
    assert paired([1.0, 1.1, 0.9, 1.0, 1.05]).can_be_told
    assert not paired([1.0, -1.1, 0.9]).can_be_told


def test_one_difference_has_no_interval() -> None:
    with pytest.raises(ValueError, match="expected two or more"):
        paired([1.0])
