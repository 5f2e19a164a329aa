"""Objectives: values and slopes computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from nas_core.objective import OBJECTIVES, LatencyGoal, Learnt, check_goal, missed, objective_of
from nas_core.search_settings import ObjectiveName, SearchSettings
from tests.support.tiny import all_paths, noisy_table, two_sites

NAMES = list(OBJECTIVES)


def loss(name: ObjectiveName, cross_entropy: float, expected_ms: float, budget_ms: float) -> float:
    """Loss with strength 0.5, curvature 4 and multiplier 2."""
    objective = objective_of(SearchSettings(objective=name, beta=0.5, rho=4.0), multiplier=2.0)
    return float(objective.loss(torch.tensor(cross_entropy), torch.tensor(expected_ms), budget_ms))


def reward(name: ObjectiveName, accuracy: float, latency_ms: float, budget_ms: float) -> float:
    objective = objective_of(SearchSettings(objective=name, beta=0.5, rho=4.0), multiplier=2.0)
    return objective.reward(accuracy, latency_ms, budget_ms)


LOSSES: list[tuple[ObjectiveName, float]] = [
    ("none", 3.0),
    ("mul_log", 0.2 * 3 * 1.5**0.5),  # log 8 / log 4 = 1.5
    ("add_linear", 3.5),  # 3 + .5 * (8 / 4 - 1)
    ("absolute", 3.5),
    ("power", 3 * 2**0.5),
    ("learnt", 3 + 2 * math.log(2) + 4 * 0.2 * (math.log(2) - 0.1)),
]

REWARDS: list[tuple[ObjectiveName, float]] = [
    ("none", 0.5),
    ("mul_log", 0.5 * (1 / 1.5) ** 0.5),
    ("add_linear", 0.0),
    ("absolute", 0.0),
    ("power", 0.5 * 0.5**0.5),
    ("learnt", 0.5),  # its latency term is added exactly
]


@pytest.mark.parametrize(("name", "expected"), LOSSES)
def test_a_loss_of_3_at_8_ms_for_a_budget_of_4(name: ObjectiveName, expected: float) -> None:
    assert loss(name, 3.0, 8.0, 4.0) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "expected"), REWARDS)
def test_the_reward_of_half_right_at_8_ms_for_a_budget_of_4(
    name: ObjectiveName, expected: float
) -> None:
    assert reward(name, 0.5, 8.0, 4.0) == pytest.approx(expected)


def test_the_published_strengths_are_the_defaults() -> None:
    ce, e = torch.tensor(3.0), torch.tensor(8.0)
    published: dict[ObjectiveName, float] = {
        "mul_log": 0.2 * 3 * 1.5**0.3,
        "add_linear": 3.1,
        "absolute": 3.1,
        "power": 3 * 2**0.07,
    }
    for name, expected in published.items():
        result = objective_of(SearchSettings(objective=name)).loss(ce, e, 4.0)
        assert float(result) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["absolute", "learnt"])
def test_these_pull_towards_the_budget_from_both_sides(name: ObjectiveName) -> None:
    objective = objective_of(SearchSettings(objective=name))
    slopes = []
    for expected_ms in (1.0, 3.0):
        latency = torch.tensor(expected_ms, requires_grad=True)
        (slope,) = torch.autograd.grad(objective.loss(torch.tensor(1.0), latency, 2.0), latency)
        slopes.append(float(slope))
    assert slopes[0] < 0 < slopes[1]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mul_log"])
def test_no_other_objective_depends_on_the_unit(name: ObjectiveName) -> None:
    assert loss(name, 2.0, 5.0, 4.0) == pytest.approx(loss(name, 2.0, 5000.0, 4000.0))
    assert reward(name, 0.7, 5.0, 4.0) == pytest.approx(reward(name, 0.7, 5000.0, 4000.0))


def test_mul_log_depends_on_the_unit() -> None:
    assert loss("mul_log", 2.0, 5.0, 4.0) != pytest.approx(loss("mul_log", 2.0, 5e3, 4e3))


@pytest.mark.parametrize(("fastest_ms", "budget_ms"), [(0.5, 3.0), (0.2, 0.9), (1.0, 5.0)])
def test_mul_log_is_refused_where_a_logarithm_is_not_above_0(
    fastest_ms: float, budget_ms: float
) -> None:
    with pytest.raises(ValueError, match=r"both must be above 1 ms, or take objective 'learnt'"):
        check_goal(SearchSettings(objective="mul_log"), fastest_ms, budget_ms)


def is_refused(name: ObjectiveName, fastest_ms: float, budget_ms: float) -> bool:
    try:
        check_goal(SearchSettings(objective=name), fastest_ms, budget_ms)
    except ValueError:
        return True
    return False


def test_the_others_take_any_latency() -> None:
    assert [name for name in NAMES if is_refused(name, 0.001, 0.002)] == ["mul_log"]
    assert [name for name in NAMES if is_refused(name, 1.5, 3.0)] == []


def test_the_multiplier_grows_over_the_budget_and_falls_below_it() -> None:
    learnt = Learnt(multiplier=1.0)
    assert learnt.next_multiplier(4.04, 4.0, eta=0.1) == pytest.approx(1.001, abs=1e-5)
    assert learnt.next_multiplier(3.96, 4.0, eta=0.1) == pytest.approx(0.999, abs=1e-5)


def test_far_from_the_budget_the_multiplier_moves_as_for_a_tenth() -> None:
    learnt = Learnt(multiplier=1.0)
    assert learnt.next_multiplier(40.0, 4.0, eta=0.1) == pytest.approx(1.01)
    assert learnt.next_multiplier(0.1, 4.0, eta=0.1) == pytest.approx(0.99)


@pytest.mark.parametrize(("d", "slope"), [(0.05, 0.5), (-0.1, -1.0), (0.5, 2.0), (9.0, 2.0)])
def test_the_penalty_of_learnt_is_quadratic_near_the_budget_and_linear_far_from_it(
    d: float, slope: float
) -> None:
    log_ratio = torch.tensor(d, dtype=torch.float64, requires_grad=True)
    penalty = Learnt(rho=10.0).loss(torch.tensor(0.0), log_ratio.exp(), 1.0)
    (result,) = torch.autograd.grad(penalty, log_ratio)
    assert float(result) == pytest.approx(slope)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "learnt"])
def test_other_objectives_have_no_multiplier(name: ObjectiveName) -> None:
    objective = objective_of(SearchSettings(objective=name), multiplier=3.0)
    assert objective.next_multiplier(6.0, 4.0, eta=0.1) == 0.0


def test_more_than_a_tenth_from_the_budget_is_a_miss() -> None:
    assert [missed(ms, 10.0) for ms in (8.9, 9.1, 10.9, 11.1)] == [True, False, False, True]


def test_a_goal_tells_the_latency_of_a_path_as_the_table_does() -> None:
    space = two_sites()
    table = noisy_table(space, 3)
    goal = LatencyGoal(table, 1.0, torch.device("cpu"))
    for path in all_paths(space):
        one_hot = [torch.eye(3)[choice] for choice in path]
        assert goal.path_ms(list(path)) == pytest.approx(float(goal.expected_ms(one_hot)))
