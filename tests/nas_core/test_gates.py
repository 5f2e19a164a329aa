"""Gates: gradients compared with autograd, draws with the probabilities that define them."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.gates import (
    alpha_grad,
    fair_path,
    gate_grad,
    log_prob_grad,
    rescale_pair,
    sample_active,
    sample_pairs,
    sample_path,
    uniform_path,
)

DRAWS = 4_000
ALPHAS = st.lists(st.floats(-5, 5), min_size=2, max_size=7)


def standard_error(probability: float) -> float:
    return math.sqrt(probability * (1 - probability) / DRAWS)


@pytest.mark.parametrize("seed", range(20))
def test_alpha_grad_matches_autograd_through_the_softmax(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    alpha = torch.randn(7, generator=rng, dtype=torch.float64, requires_grad=True)
    gates = torch.randn(7, generator=rng, dtype=torch.float64)
    (gates @ alpha.softmax(0)).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(alpha_grad(gates, alpha.detach()), alpha.grad)


@given(ALPHAS, st.floats(-10, 10))
def test_alpha_grad_ignores_what_all_gates_share(values: list[float], shift: float) -> None:
    alpha = torch.tensor(values, dtype=torch.float64)
    gates = alpha.flip(0)
    torch.testing.assert_close(alpha_grad(gates + shift, alpha), alpha_grad(gates, alpha))


def test_alpha_grad_refuses_a_gate_too_few() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) but alpha has shape \(3,\); a site needs one"):
        alpha_grad(torch.zeros(2), torch.zeros(3))


def test_gate_grad_is_the_derivative_of_the_loss_by_the_gate() -> None:
    rng = torch.Generator().manual_seed(0)
    outputs = [torch.randn(2, 3, 4, 4, generator=rng, dtype=torch.float64) for _ in range(3)]
    gates = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    y = torch.stack([gate * output for gate, output in zip(gates, outputs, strict=True)]).sum(0)
    y.retain_grad()
    y.sin().square().sum().backward()  # type: ignore[no-untyped-call]
    assert y.grad is not None
    result = torch.stack([gate_grad(y.grad, output) for output in outputs])
    torch.testing.assert_close(result, gates.grad)


def test_paths_are_drawn_with_the_probabilities_of_their_ops() -> None:
    p, rng = torch.tensor([0.6, 0.3, 0.1]), torch.Generator().manual_seed(0)
    seen = Counter(sample_path([p] * DRAWS, rng))
    for op, probability in enumerate(p.tolist()):
        assert abs(seen[op] / DRAWS - probability) < 4 * standard_error(probability)


def test_uniform_paths_take_every_op_equally_often() -> None:
    seen = Counter(uniform_path([4] * DRAWS, torch.Generator().manual_seed(0)))
    assert sorted(seen) == [0, 1, 2, 3]
    assert all(abs(n / DRAWS - 0.25) < 4 * standard_error(0.25) for n in seen.values())


def test_fair_paths_take_each_op_of_a_site_once_per_round() -> None:
    choices = [2, 3, 7]
    for site, k in enumerate(choices):
        ops = [fair_path(choices, step, seed=5)[site] for step in range(4 * k)]
        rounds = [ops[first : first + k] for first in range(0, 4 * k, k)]
        assert all(sorted(this_round) == list(range(k)) for this_round in rounds)


def test_fair_paths_pair_the_ops_of_two_sites_in_every_way() -> None:
    pairs = Counter(tuple(fair_path([3, 3], step, seed=0)) for step in range(900))
    assert len(pairs) == 9
    assert min(pairs.values()) > 75


@pytest.mark.parametrize("choice", [0, 1, 2])
def test_log_prob_grad_matches_autograd_through_the_softmax(choice: int) -> None:
    alpha = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(alpha.log_softmax(0)[choice], alpha)
    torch.testing.assert_close(log_prob_grad(alpha.detach().softmax(0), choice), expected)


def test_ordered_pairs_are_drawn_one_after_the_other_without_replacement() -> None:
    p = [0.6, 0.3, 0.1]
    seen = Counter(sample_pairs([torch.tensor(p)] * DRAWS, torch.Generator().manual_seed(0)))
    assert all(i != j for i, j in seen)
    for i in range(3):
        for j in {0, 1, 2} - {i}:
            expected = p[i] * p[j] / (1 - p[i])
            assert abs(seen[i, j] / DRAWS - expected) < 4 * standard_error(expected)


def test_the_active_op_is_drawn_from_the_softmax_over_the_pair() -> None:
    alpha = torch.tensor([0.0, 5.0, 1.0])
    rng = torch.Generator().manual_seed(0)
    active = sample_active([alpha] * DRAWS, [(2, 0)] * DRAWS, rng)
    expected = 1 / (1 + torch.tensor(1.0).exp().item())  # e^0 / (e^1 + e^0)
    assert abs(sum(active) / DRAWS - expected) < 4 * standard_error(expected)


@given(ALPHAS, st.floats(-3, 3), st.floats(-3, 3))
def test_settling_a_pair_leaves_all_other_probabilities_as_they_were(
    values: list[float], first: float, second: float
) -> None:
    before = torch.tensor(values, dtype=torch.float64)
    alpha = before.clone()
    alpha[0] += first
    alpha[-1] += second
    rescale_pair(alpha, before, (0, len(values) - 1))
    torch.testing.assert_close(alpha.softmax(0)[1:-1], before.softmax(0)[1:-1])


@given(ALPHAS, st.floats(-3, 3))
def test_settling_a_pair_keeps_the_odds_within_the_pair(values: list[float], step: float) -> None:
    before = torch.tensor(values, dtype=torch.float64)
    alpha = before.clone()
    alpha[0] += step
    odds = alpha[0] - alpha[1]
    rescale_pair(alpha, before, (0, 1))
    torch.testing.assert_close(alpha[0] - alpha[1], odds)
