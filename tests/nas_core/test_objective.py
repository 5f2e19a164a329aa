"""Objectives: values and slopes worked out by hand."""

from __future__ import annotations

import pytest
import torch

from nas_core.objective import OBJECTIVES, absolute


def slope(expected_ms: float, budget_ms: float) -> float:
    latency = torch.tensor(expected_ms, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(absolute(0.1)(latency, budget_ms), latency)
    return float(grad)


@pytest.mark.parametrize(("expected_ms", "penalty"), [(1.0, 0.05), (2.0, 0.0), (3.0, 0.05)])
def test_absolute_is_beta_times_the_relative_distance(expected_ms: float, penalty: float) -> None:
    assert float(absolute(0.1)(torch.tensor(expected_ms), 2.0)) == pytest.approx(penalty)


def test_absolute_pulls_towards_the_budget_from_both_sides() -> None:
    assert slope(3.0, 2.0) == pytest.approx(0.05)
    assert slope(1.0, 2.0) == pytest.approx(-0.05)


def test_at_the_budget_absolute_does_not_pull() -> None:
    assert slope(2.0, 2.0) == 0.0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_objective_depends_on_the_unit(name: str) -> None:
    penalty = OBJECTIVES[name](0.1)
    in_ms, in_us = penalty(torch.tensor(0.5), 0.4), penalty(torch.tensor(500.0), 400.0)
    torch.testing.assert_close(in_ms, in_us)
