"""Gradient strategies, compared with autograd through gates that are leaf tensors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_core import gradient_strategies
from nas_core.batch import Batch
from nas_core.gates import Pair, sample_active, sample_path
from nas_core.gradient_strategies import Darts, FullPath, Reinforce, TwoPath
from nas_core.search_settings import SearchSettings
from nas_core.search_state import STRATEGIES
from nas_core.strategy import Update, UpdateContext
from nas_core.supernet import Supernet
from tests.support.supernets import a_batch, a_context, a_supernet

LEARN = [name for name, make in STRATEGIES.items() if make().weights in ("path", "mixture")]


def force(monkeypatch: pytest.MonkeyPatch, pairs: list[Pair], active: list[int]) -> None:
    """Make the next two-path update use these draws."""
    monkeypatch.setattr(gradient_strategies, "sample_pairs", lambda _probs, _rng: pairs)
    monkeypatch.setattr(gradient_strategies, "sample_active", lambda _alphas, _pairs, _rng: active)


def gate_grads_by_autograd(net: Supernet, path: Sequence[int], batch: Batch) -> list[Tensor]:
    """dL/dg of every op: all of them run, weighted by gates that are leaf tensors."""
    net = copy.deepcopy(net)
    gates = [
        F.one_hot(torch.tensor(choice), len(alpha)).double().requires_grad_()
        for choice, alpha in zip(path, net.alphas(), strict=True)
    ]
    x = net.stem(batch.images)
    for site, gate in enumerate(gates):
        x = torch.stack([g * net.op(site, j)(x) for j, g in enumerate(gate)]).sum(0)
    return list(torch.autograd.grad(F.cross_entropy(net.head(x), batch.labels), gates))


def through_softmax(alpha: Tensor, gate_grad: Tensor, members: Sequence[int]) -> Tensor:
    """Gradient of the alphas by autograd through the softmax over `members`."""
    leaf = alpha.detach().clone().requires_grad_()
    loss = gate_grad[list(members)] @ leaf[list(members)].softmax(0)
    return torch.autograd.grad(loss, leaf)[0]


def active_of(net: Supernet, context: UpdateContext, pairs: Sequence[Pair]) -> list[int]:
    return sample_active(net.alphas(), pairs, context.own_rng("active"))


def assert_two_path_as_by_autograd(
    net: Supernet, batch: Batch, found: Update, active: list[int]
) -> None:
    assert found.pairs is not None
    assert found.grads is not None
    path = [pair[a] for pair, a in zip(found.pairs, active, strict=True)]
    gates = gate_grads_by_autograd(net, path, batch)
    for alpha, gate, pair, grad in zip(net.alphas(), gates, found.pairs, found.grads, strict=True):
        expected = through_softmax(alpha, gate, pair)
        torch.testing.assert_close(grad, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(10))
def test_two_path_equals_autograd_through_gates_that_are_leaves(seed: int) -> None:
    net, batch = a_supernet(seed), a_batch(seed)
    context = a_context(net, batch, seed=seed)
    result = TwoPath().update(context)
    assert result.pairs is not None
    assert_two_path_as_by_autograd(net, batch, result, active_of(net, context, result.pairs))


@pytest.mark.parametrize("seed", range(10))
def test_full_path_equals_autograd_through_gates_that_are_leaves(seed: int) -> None:
    net, batch = a_supernet(seed), a_batch(seed)
    context = a_context(net, batch, seed=seed)
    result = FullPath().update(context).grads
    assert result is not None
    path = sample_path(net.probs(), context.own_rng("active"))
    gates = gate_grads_by_autograd(net, path, batch)
    for alpha, gate, grad in zip(net.alphas(), gates, result, strict=True):
        expected = through_softmax(alpha, gate, range(len(alpha)))
        torch.testing.assert_close(grad, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_darts_equals_autograd_through_the_mixture(seed: int) -> None:
    net, batch = a_supernet(seed), a_batch(seed)
    result = Darts().update(a_context(net, batch)).grads
    assert result is not None
    twin = copy.deepcopy(net)
    x = twin.stem(batch.images)
    for site, alpha in enumerate(twin.alphas()):
        x = sum(p * twin.op(site, j)(x) for j, p in enumerate(alpha.softmax(0)))
    expected = torch.autograd.grad(F.cross_entropy(twin.head(x), batch.labels), twin.alphas())
    for item, other in zip(result, expected, strict=True):
        torch.testing.assert_close(item, other, rtol=0, atol=1e-10)


def test_reinforce_equals_autograd_of_the_log_probabilities() -> None:
    net, batch = a_supernet(0), a_batch(0)
    context = a_context(net, batch, SearchSettings(samples=4, objective="absolute"), baseline=0.3)
    result = Reinforce().update(context).grads
    assert result is not None
    rng = context.own_rng("networks")
    paths = [sample_path(net.probs(), rng) for _ in range(4)]
    rewards = Reinforce().rewards(context, paths)
    assert len(set(rewards)) > 1
    surrogate = sum(
        -(reward - 0.3) / 4 * alpha.log_softmax(0)[choice]
        for path, reward in zip(paths, rewards, strict=True)
        for alpha, choice in zip(net.alphas(), path, strict=True)
    )
    assert isinstance(surrogate, Tensor)
    for item, other in zip(result, torch.autograd.grad(surrogate, net.alphas()), strict=True):
        torch.testing.assert_close(item, other, rtol=0, atol=1e-10)


def test_a_reward_is_that_of_the_objective_for_accuracy_and_latency() -> None:
    net, batch = a_supernet(0), a_batch(0)
    context = a_context(net, batch, SearchSettings(objective="absolute", beta=0.5))
    (reward,) = Reinforce().rewards(context, [[1, 3]])
    with torch.no_grad(), net.frozen():
        accuracy = (net(batch.images, [1, 3]).argmax(1) == batch.labels).double().mean()
    ratio = context.goal.path_ms([1, 3]) / context.goal.budget_ms
    assert reward == pytest.approx(float(accuracy) - 0.5 * abs(ratio - 1))


def test_the_first_update_of_reinforce_only_makes_the_average() -> None:
    result = Reinforce().update(a_context(a_supernet(0), a_batch(0)))
    assert result.grads is not None
    assert all(not grad.any() for grad in result.grads)
    assert result.reward is not None


@pytest.mark.parametrize("active", [[0, 0], [0, 1], [1, 0]])
def test_two_path_at_a_site_whose_active_op_is_skip_has_a_gradient_like_any_other(
    active: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, batch = a_supernet(0), a_batch(0)
    force(monkeypatch, [(3, 0), (3, 2)], active)  # op 3 is skip
    result = TwoPath().update(a_context(net, batch))
    assert result.grads is not None
    assert all(grad.abs().max() > 1e-6 for grad in result.grads)
    assert_two_path_as_by_autograd(net, batch, result, active)


@pytest.mark.parametrize("path", [[3, 3], [3, 0], [0, 3]])
def test_full_path_at_a_site_whose_active_op_is_skip_has_a_gradient_like_any_other(
    path: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, batch = a_supernet(0), a_batch(0)
    monkeypatch.setattr(gradient_strategies, "sample_path", lambda _probs, _rng: path)
    result = FullPath().update(a_context(net, batch)).grads
    assert result is not None
    gates = gate_grads_by_autograd(net, path, batch)
    for alpha, gate, grad in zip(net.alphas(), gates, result, strict=True):
        assert grad.abs().max() > 1e-6
        expected = through_softmax(alpha, gate, range(4))
        torch.testing.assert_close(grad, expected, rtol=0, atol=1e-10)


def test_ops_outside_the_pair_get_no_gradient_from_the_loss() -> None:
    for seed in range(5):
        result = TwoPath().update(a_context(a_supernet(seed), a_batch(seed), seed=seed))
        assert result.grads is not None
        assert result.pairs is not None
        for grad, pair in zip(result.grads, result.pairs, strict=True):
            assert {int(i) for i in grad.nonzero()} <= set(pair)


@pytest.mark.parametrize("strategy", ["two_path", "full_path"])
def test_the_loss_is_the_cross_entropy_of_the_path_that_ran(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, batch = a_supernet(0), a_batch(0)
    force(monkeypatch, [(2, 0), (1, 3)], [1, 0])
    monkeypatch.setattr(gradient_strategies, "sample_path", lambda _probs, _rng: [0, 1])
    result = STRATEGIES[strategy]().update(a_context(net, batch))
    assert result.loss is not None
    expected = F.cross_entropy(net(batch.images, [0, 1]), batch.labels)
    torch.testing.assert_close(result.loss, expected.detach())


def test_the_pair_is_the_same_on_all_workers_and_the_active_op_each_ones_own() -> None:
    net = a_supernet(0)
    scenes = [a_context(net, a_batch(0), number=n) for n in range(20)]
    draws = []
    for context in scenes:
        assert context.batch is not None
        other = replace(context, batch=replace(context.batch, first=8))
        first, second = TwoPath().update(context).pairs, TwoPath().update(other).pairs
        assert first is not None
        assert first == second
        draws.append(active_of(net, context, first) == active_of(net, other, first))
    assert not all(draws)


@pytest.mark.parametrize("strategy", LEARN)
def test_updates_change_no_weight_no_alpha_and_no_buffer(strategy: str) -> None:
    net = a_supernet(0)
    before = copy.deepcopy(net.state_dict())
    STRATEGIES[strategy]().update(a_context(net, a_batch(0), baseline=0.1))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("strategy", LEARN)
def test_the_gradients_of_a_site_sum_to_zero(strategy: str) -> None:
    result = STRATEGIES[strategy]().update(a_context(a_supernet(1), a_batch(1), baseline=0.1))
    assert result.grads is not None
    for grad in result.grads:
        assert grad.abs().max() > 1e-9
        assert float(grad.sum()) == pytest.approx(0.0, abs=1e-12)
