"""Expectations of sampled gradients, computed exactly over all paths, pairs and ops.

The spaces have two sites with three ops, in float64, so that everything can be enumerated; sampled
means have to be within four standard errors over 20,000 draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from nas_core import gradient_strategies
from nas_core.batch import Batch
from nas_core.gates import Pair
from nas_core.search_settings import SearchSettings
from nas_core.search_state import STRATEGIES
from nas_core.strategy import UpdateContext
from nas_core.supernet import Supernet
from tests.support.supernets import a_context, one_image, random_matrices, supernet_of

DRAWS = 20_000
PROBS = [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]
X = torch.ones(1, 2, 1, 1).double()
WEIGHT = torch.tensor([0.7, -1.3]).double()


def affine(y: Tensor) -> Tensor:
    return 20.0 + WEIGHT @ y.flatten()


def curved(y: Tensor) -> Tensor:
    return 2.0 + torch.tanh(WEIGHT @ y.flatten())


def three_ops(loss: Callable[[Tensor], Tensor]) -> Supernet:
    return supernet_of(random_matrices(0, 3), PROBS, loss)


def paths_with_chances(probs: list[list[float]]) -> Iterator[tuple[list[int], float]]:
    for path in product(*(range(len(p)) for p in probs)):
        chance = 1.0
        for p, choice in zip(probs, path, strict=True):
            chance *= p[choice]
        yield list(path), chance


def pairs_with_chances(
    probs: list[list[float]],
) -> Iterator[tuple[list[Pair], list[int], float]]:
    """Ordered pairs (two draws without replacement) and active ops, with their probability."""
    per_site = [
        [
            ((i, j), active, p[i] * p[j] / (1 - p[i]) * p[op] / (p[i] + p[j]))
            for i, j in permutations(range(len(p)), 2)
            for active, op in enumerate((i, j))
        ]
        for p in probs
    ]
    for draws in product(*per_site):
        chance = float(torch.tensor([c for *_, c in draws], dtype=torch.float64).prod())
        yield [pair for pair, *_ in draws], [active for _, active, _ in draws], chance


def grads_of(strategy: str, context: UpdateContext) -> Tensor:
    result = STRATEGIES[strategy]().update(context).grads
    assert result is not None
    return torch.stack(result)


def assert_mean(strategy: str, context: UpdateContext, expected: Tensor) -> None:
    """Assert that the mean over many draws is within four standard errors in every component."""
    total, squares = torch.zeros_like(expected), torch.zeros_like(expected)
    for number in range(DRAWS):
        grads = grads_of(strategy, replace(context, number=number))
        total += grads
        squares += grads * grads
    mean = total / DRAWS
    error = ((squares / DRAWS - mean * mean) / DRAWS).sqrt()
    assert expected.abs().max() > 10 * error.max()  # the draws can distinguish it from 0
    assert (mean - expected).abs().le(4 * error + 1e-12).all()


def exact_gradient(net: Supernet, value: Callable[[list[int]], Tensor | float]) -> Tensor:
    """Gradient of the expected value over all paths, by autograd through the probabilities."""
    alphas = [alpha.detach().clone().requires_grad_() for alpha in net.alphas()]
    probs = [alpha.softmax(0) for alpha in alphas]
    terms = [
        torch.stack([p[choice] for p, choice in zip(probs, path, strict=True)]).prod()
        * value(list(path))
        for path in product(*(range(len(p)) for p in probs))
    ]
    return torch.stack(torch.autograd.grad(torch.stack(terms).sum(), alphas))


def loss_of(
    net: Supernet, loss: Callable[[Tensor], Tensor], images: Tensor = X
) -> Callable[[list[int]], Tensor]:
    def value(path: list[int]) -> Tensor:
        x = images
        for site, choice in enumerate(path):
            x = net.op(site, choice)(x)
        return loss(x)

    return value


def expectation_of_full_path(
    net: Supernet, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    total = torch.zeros(2, 3).double()
    with monkeypatch.context() as patch:
        for path, chance in paths_with_chances(PROBS):
            patch.setattr(gradient_strategies, "sample_path", lambda _p, _r, path=path: path)
            total += chance * grads_of("full_path", a_context(net, batch))
    return total


def expectation_of_two_path(
    net: Supernet, probs: list[list[float]], batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    total = torch.zeros(len(probs), len(probs[0])).double()
    with monkeypatch.context() as patch:
        for pairs, active, chance in pairs_with_chances(probs):
            patch.setattr(gradient_strategies, "sample_pairs", lambda _p, _r, pairs=pairs: pairs)
            patch.setattr(
                gradient_strategies, "sample_active", lambda _a, _p, _r, active=active: active
            )
            total += chance * grads_of("two_path", a_context(net, batch))
    return total


def rewards_of(net: Supernet, context: UpdateContext) -> Callable[[list[int]], float]:
    strategy = gradient_strategies.Reinforce()
    return lambda path: strategy.rewards(context, [path])[0]


@pytest.mark.slow
def test_reinforce_estimates_the_gradient_of_the_expected_reward() -> None:
    net = three_ops(lambda y: 0.7 + torch.tanh(WEIGHT @ y.flatten()) / 2)  # right or wrong by path
    settings = SearchSettings(objective="absolute", beta=0.5, samples=1)
    context = a_context(net, one_image(X), settings, baseline=0.4)
    value = rewards_of(net, context)
    assert {value(path) > 0.5 for path, _ in paths_with_chances(PROBS)} == {True, False}
    assert_mean("reinforce", context, -exact_gradient(net, value))


@pytest.mark.long
@pytest.mark.slow
def test_full_path_estimates_the_exact_gradient_where_ops_are_linear_and_the_loss_affine() -> None:
    net = three_ops(affine)
    expected = exact_gradient(net, loss_of(net, affine))
    assert_mean("full_path", a_context(net, one_image(X)), expected)


@pytest.mark.slow
def test_full_path_estimates_its_own_expectation_under_any_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, batch = three_ops(curved), one_image(X)
    expected = expectation_of_full_path(net, batch, monkeypatch)
    assert_mean("full_path", a_context(net, batch), expected)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [curved, pytest.param(affine, marks=pytest.mark.long)])
def test_two_path_estimates_its_own_expectation(
    loss: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, batch = three_ops(loss), one_image(X)
    expected = expectation_of_two_path(net, PROBS, batch, monkeypatch)
    assert_mean("two_path", a_context(net, batch), expected)


@pytest.mark.slow
def test_two_path_estimates_the_exact_gradient_with_two_ops_and_an_affine_loss() -> None:
    net = supernet_of(random_matrices(0, 2), [[0.7, 0.3], [0.2, 0.8]], affine)
    expected = exact_gradient(net, loss_of(net, affine))
    assert_mean("two_path", a_context(net, one_image(X)), expected)


def test_with_two_ops_and_an_affine_loss_the_expectation_is_the_exact_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probs = [[0.7, 0.3], [0.2, 0.8]]
    net = supernet_of(random_matrices(0, 2), probs, affine)
    result = expectation_of_two_path(net, probs, one_image(X), monkeypatch)
    expected = exact_gradient(net, loss_of(net, affine))
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_full_path_has_the_exact_gradient_as_its_expectation_under_an_affine_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = three_ops(affine)
    result = expectation_of_full_path(net, one_image(X), monkeypatch)
    expected = exact_gradient(net, loss_of(net, affine))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_with_three_ops_the_two_path_expectation_has_the_sign_but_not_the_size_of_the_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # p = (.6, .3, .1) and losses (1, 2, 0): the exact gradient is (-.120, .240, -.120).
    probs, one = [[0.6, 0.3, 0.1]], torch.ones(1, 1).double()
    loss = lambda y: 1.0 + y.sum()  # noqa: E731
    net = supernet_of([[1 * one, 2 * one, 0 * one]], probs, loss)
    x = torch.ones(1, 1, 1, 1).double()
    exact = exact_gradient(net, loss_of(net, loss, x))
    result = expectation_of_two_path(net, probs, one_image(x), monkeypatch)
    assert exact[0].tolist() == pytest.approx([-0.120, 0.240, -0.120])
    assert result[0].tolist() == pytest.approx([-0.131, 0.186, -0.055], abs=5e-4)
    assert torch.equal(result.sign(), exact.sign())


def test_under_a_quadratic_loss_the_estimate_is_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ops returning 0 and 1, loss (y - .2)**2, p = (.8, .2): the exact gradient is -+.096.
    probs, one = [[0.8, 0.2]], torch.ones(1, 1).double()
    loss = lambda y: 1.0 + (y.sum() - 0.2) ** 2  # noqa: E731
    net = supernet_of([[0 * one, one]], probs, loss)
    x = torch.ones(1, 1, 1, 1).double()
    exact = exact_gradient(net, loss_of(net, loss, x))
    assert exact[0].tolist() == pytest.approx([-0.096, 0.096])
    result = expectation_of_two_path(net, probs, one_image(x), monkeypatch)
    assert result[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    # Not trivially zero: every single estimate is nonzero, only their mean is 0.
    single = [grads_of("two_path", a_context(net, one_image(x), number=n)) for n in range(20)]
    assert all(grads.abs().max() > 0.01 for grads in single)
