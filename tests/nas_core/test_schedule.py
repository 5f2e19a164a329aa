"""The schedule of a search."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from torch import Tensor

from nas_core.schedule import Schedule, scaled_alpha_lr, scaled_warmup_lr, search_cost
from nas_core.search_settings import SearchSettings


def schedule(steps: int = 10, **settings: Any) -> Schedule:
    values = {"warmup_epochs": 2, "epochs": 4, "hold_epochs": 1, "alpha_every": 2, **settings}
    return Schedule(SearchSettings(**values), steps)


def test_a_published_search_makes_115_000_updates_at_the_published_rate() -> None:
    steps = -(-(1_281_167 - 50_000) // 256)
    whole = Schedule(SearchSettings(), steps)
    assert whole.updates == pytest.approx(115_000, rel=0.01)
    assert whole.alpha_lr(0) == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize(("updates", "lr"), [(1, 0.1), (136, 0.1), (600, 0.05), (115_000, 1e-3)])
def test_the_learning_rate_of_alphas_falls_with_the_number_of_updates(
    updates: int, lr: float
) -> None:
    assert scaled_alpha_lr(updates) == pytest.approx(lr, rel=0.01)


def test_the_published_warm_up_has_the_published_rate() -> None:
    steps = -(-(1_281_167 - 50_000) // 256)
    assert Schedule(SearchSettings(), steps).weight_lr(0, 0) == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize(("steps", "lr"), [(1, 0.1), (1_600, 0.1), (20_000, 0.069)])
def test_the_learning_rate_of_a_warm_up_falls_with_its_length(steps: int, lr: float) -> None:
    assert scaled_warmup_lr(steps) == pytest.approx(lr, rel=0.01)
    assert schedule(steps=steps, warmup_epochs=1).weight_lr(0, 0) == pytest.approx(lr, rel=0.01)
    assert schedule(steps=steps, warmup_lr=0.03).weight_lr(0, 0) == 0.03


def test_a_named_learning_rate_of_alphas_is_taken() -> None:
    assert schedule(alpha_lr=0.3).alpha_lr(0) == 0.3


def test_the_ramp_rises_from_a_tenth() -> None:
    ramped = schedule(alpha_lr=1.0, alpha_ramp=0.4)  # 15 updates, 6 of them on the ramp
    assert ramped.updates == 15
    result = [ramped.alpha_lr(done) for done in (0, 3, 6, 14)]
    assert result == pytest.approx([0.1, 0.55, 1.0, 1.0])


def test_as_many_updates_are_counted_as_there_are_turns() -> None:
    for every in (1, 2, 3, 7):
        calendar = schedule(alpha_every=every)
        turns = [calendar.is_update_turn(e, s) for e in range(6) for s in range(10)]
        assert sum(turns) == calendar.updates
        assert not any(turns[:30])  # two epochs of warm-up, one held


def test_networks_are_scored_as_often_as_updates_would_be_made_without_a_hold() -> None:
    for every in (1, 2, 3, 7):
        calendar = schedule(alpha_every=every, strategy="random")
        assert sum(calendar.scores_in(epoch) for epoch in range(2, 6)) == calendar.updates
        assert calendar.updates == 40 // every


def test_trials_take_the_passes_of_warm_up_and_search() -> None:
    assert schedule(strategy="rl_trials", trial_epochs=2).updates == 3


def test_the_step_of_the_multiplier_falls_with_the_number_of_updates() -> None:
    assert schedule().eta() == pytest.approx(50 / 15)
    assert schedule(eta=0.02).eta() == 0.02


def test_fair_warm_up_takes_every_op_equally_often() -> None:
    calendar = schedule(warmup_sampling="fair")
    paths = [calendar.warmup_path([2, 5], 0, e, s) for e in range(2) for s in range(10)]
    assert Counter(path[0] for path in paths) == {0: 10, 1: 10}
    assert Counter(path[1] for path in paths) == dict.fromkeys(range(5), 4)


def test_a_warm_up_draws_the_same_paths_again() -> None:
    for sampling in ("fair", "uniform"):
        calendar = schedule(warmup_sampling=sampling, op_warmup=0.0)
        first = [calendar.warmup_path([4, 4], 7, e, s) for e in range(2) for s in range(10)]
        again = [calendar.warmup_path([4, 4], 7, e, s) for e in range(2) for s in range(10)]
        other = [calendar.warmup_path([4, 4], 8, e, s) for e in range(2) for s in range(10)]
        assert first == again != other


def test_op_warm_up_averages_all_sites_at_first_and_none_at_its_end() -> None:
    calendar = schedule(steps=400, op_warmup=0.5)  # over the first 400 steps
    shares = [
        sum(isinstance(choice, Tensor) for choice in calendar.warmup_path([3] * 20, 0, e, s)) / 20
        for e in range(2)
        for s in range(400)
    ]
    assert shares[0] == 1.0
    assert sum(shares[100:300]) / 200 == pytest.approx(0.5, abs=0.05)
    assert not any(shares[400:])


def test_an_averaged_site_weighs_all_its_ops_equally() -> None:
    (choice,) = schedule(op_warmup=1.0).warmup_path([4], 0, 0, 0)
    assert isinstance(choice, Tensor)
    assert choice.tolist() == [0.25] * 4


def cost(choices: tuple[int, ...] = (6, 6), **settings: Any) -> float:
    """Cost of a search with 20 warm-up steps, 40 further steps and 15 (at most 30) updates."""
    return search_cost(schedule(**settings).settings, 10, choices)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("two_path", 60 + 15),
        ("full_path", 60 + 15 * 7 / 3),
        ("darts", 6 * 60 + 15 * 4),
        ("reinforce", 60 + 15 * 10 / 3),
        ("random", 20 + 20 * 3 / 3),  # one batch of the architecture split, two for statistics
        ("evolution", 20 + 20 * 3 / 3),
    ],
)
def test_a_search_costs_its_steps_and_what_its_updates_run(strategy: str, expected: float) -> None:
    assert cost(strategy=strategy) == pytest.approx(expected)


def test_trials_cost_the_steps_that_train_them_and_their_scores() -> None:
    assert cost(strategy="rl_trials", trial_epochs=2) == pytest.approx(3 * (20 + 1))


def test_averaged_sites_of_the_warm_up_cost_all_their_ops() -> None:
    # The chance falls from 1 to 0 over all 20 steps: ten in which five more ops run.
    assert cost(op_warmup=1.0) == pytest.approx(cost() + 10 * 5)


def test_the_cost_of_a_search_follows_from_its_cost_facts() -> None:
    one, other = schedule(lr=0.1, alpha_lr=0.5, beta=1.0), schedule()
    assert one.settings.cost_facts() == other.settings.cost_facts()
    assert schedule(samples=3).settings.cost_facts() != other.settings.cost_facts()
