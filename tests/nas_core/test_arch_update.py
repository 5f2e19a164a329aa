"""Architecture updates: gradients against autograd through gates that are leaves, and exact
expectations over every pair and active op."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations, product
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core import arch_update
from nas_core.arch_update import ARCH_UPDATES, AlphaGrads, TwoPath
from nas_core.gates import Pair, sample_active
from nas_core.supernet import Supernet
from tests.nas_core.tiny import K3, K5, K7, images_and_labels, two_sites

Draw = tuple[list[Pair], list[int]]


def a_supernet(seed: int, ops: Sequence[str] = (K3, K5, K7, "skip")) -> Supernet:
    """In float64, with alphas that differ."""
    rng = torch.Generator().manual_seed(seed)
    net = Supernet(two_sites(ops), rng).double().train()
    for alpha in net.alphas():
        alpha.data.normal_(generator=rng)
    return net


def a_batch(seed: int) -> tuple[Tensor, Tensor]:
    images, labels = images_and_labels(6, seed)
    return images.double(), labels


def rngs(seed: int) -> tuple[torch.Generator, torch.Generator]:
    return torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 + seed)


def force(monkeypatch: pytest.MonkeyPatch, pairs: list[Pair], active: list[int]) -> None:
    """Let the next update draw these."""
    monkeypatch.setattr(arch_update, "sample_pairs", lambda _probs, _rng: pairs)
    monkeypatch.setattr(arch_update, "sample_active", lambda _alphas, _pairs, _rng: active)


def gate_grads_by_autograd(
    net: Supernet, path: list[int], batch: tuple[Tensor, Tensor]
) -> list[Tensor]:
    """dL/dg of every op: all of them run, weighted by gates that are leaves."""
    net = copy.deepcopy(net)
    gates = [
        F.one_hot(torch.tensor(choice), len(alpha)).double().requires_grad_()
        for choice, alpha in zip(path, net.alphas(), strict=True)
    ]
    x = net.stem(batch[0])
    for site, gate in enumerate(gates):
        x = torch.stack([g * net.op(site, j)(x) for j, g in enumerate(gate)]).sum(0)
    return list(torch.autograd.grad(F.cross_entropy(net.head(x), batch[1]), gates))


def pair_grad_by_autograd(alpha: Tensor, gate_grad: Tensor, pair: Pair) -> Tensor:
    """Through the softmax over the pair; the rest of the alphas get nothing."""
    leaf = alpha.detach().clone().requires_grad_()
    loss = gate_grad[list(pair)] @ leaf[list(pair)].softmax(0)
    return torch.autograd.grad(loss, leaf)[0]


def assert_as_by_autograd(
    net: Supernet, batch: tuple[Tensor, Tensor], found: AlphaGrads, active: list[int]
) -> None:
    path = [pair[a] for pair, a in zip(found.pairs, active, strict=True)]
    by_autograd = gate_grads_by_autograd(net, path, batch)
    for alpha, gates, pair, grad in zip(
        net.alphas(), by_autograd, found.pairs, found.grads, strict=True
    ):
        expected = pair_grad_by_autograd(alpha, gates, pair)
        torch.testing.assert_close(grad, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(10))
def test_two_path_equals_autograd_through_gates_that_are_leaves(seed: int) -> None:
    net, batch = a_supernet(seed), a_batch(seed)
    found = TwoPath().grads(net, *batch, *rngs(seed))
    active = sample_active(net.alphas(), found.pairs, rngs(seed)[1])
    assert_as_by_autograd(net, batch, found, active)


@pytest.mark.parametrize("active", [[0, 0], [0, 1], [1, 0]])
def test_a_site_whose_active_op_is_skip_has_a_gradient_like_any_other(
    active: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, batch = a_supernet(0), a_batch(0)
    force(monkeypatch, [(3, 0), (3, 2)], active)  # op 3 is skip
    found = TwoPath().grads(net, *batch, *rngs(0))
    assert all(grad.abs().max() > 1e-6 for grad in found.grads)
    assert_as_by_autograd(net, batch, found, active)


def test_ops_outside_the_pair_get_no_gradient_from_the_loss() -> None:
    for seed in range(5):
        found = TwoPath().grads(a_supernet(seed), *a_batch(seed), *rngs(seed))
        for grad, pair in zip(found.grads, found.pairs, strict=True):
            assert {int(i) for i in grad.nonzero()} <= set(pair)


def test_the_loss_is_the_cross_entropy_of_the_path_that_ran() -> None:
    net, (images, labels) = a_supernet(0), a_batch(0)
    found = TwoPath().grads(net, images, labels, *rngs(0))
    active = sample_active(net.alphas(), found.pairs, rngs(0)[1])
    path = [pair[a] for pair, a in zip(found.pairs, active, strict=True)]
    torch.testing.assert_close(found.loss, F.cross_entropy(net(images, path), labels).detach())


def test_workers_that_share_the_pair_generator_move_the_same_alphas() -> None:
    net, batch = a_supernet(0), a_batch(0)
    first = TwoPath().grads(net, *batch, rngs(7)[0], torch.Generator().manual_seed(1))
    second = TwoPath().grads(net, *batch, rngs(7)[0], torch.Generator().manual_seed(2))
    assert first.pairs == second.pairs


@pytest.mark.parametrize("strategy", ARCH_UPDATES)
def test_gradients_change_no_weight_no_alpha_and_no_buffer(strategy: str) -> None:
    net = a_supernet(0)
    before = copy.deepcopy(net.state_dict())
    ARCH_UPDATES[strategy]().grads(net, *a_batch(0), *rngs(0))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


# Expectations. The ops below are linear and the head turns cross entropy into any loss one likes.


class Matrix(nn.Module):
    """A linear op without weights."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("dc,nchw->ndhw", self.get_buffer("matrix"), x)


class LogitsOf(nn.Module):
    """Two logits under which the cross entropy of label 0 is `loss(x)`, a number above 0."""

    def __init__(self, loss: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: Tensor) -> Tensor:
        log_q = -self.loss(x)
        return torch.stack([log_q, torch.log(-torch.expm1(log_q))])[None]


def supernet_of(
    matrices: list[list[Tensor]], probs: list[list[float]], loss: Callable[[Tensor], Tensor]
) -> Supernet:
    """A supernet with these linear ops, op probabilities and loss."""
    space = two_sites((K3, K5, K7)[: len(probs[0])], sites=len(probs))
    net = Supernet(space, torch.Generator()).double().train()
    net.add_module("stem", nn.Identity())
    net.add_module("head", LogitsOf(loss))
    for site, ops in enumerate(matrices):
        for j, matrix in enumerate(ops):
            cast(nn.ModuleList, net.sites[site])[j] = Matrix(matrix)
        net.alphas()[site].data = torch.tensor(probs[site], dtype=torch.float64).log()
    return net


def all_draws(probs: list[list[float]]) -> Iterator[tuple[Draw, float]]:
    """Every choice of ordered pairs and active ops, with its probability (two draws without
    replacement, then one from the pair)."""
    per_site = []
    for p in probs:
        site = []
        for i, j in permutations(range(len(p)), 2):
            for active, op in enumerate((i, j)):
                chance = p[i] * p[j] / (1 - p[i]) * p[op] / (p[i] + p[j])
                site.append(((i, j), active, chance))
        per_site.append(site)
    for draws in product(*per_site):
        chance = float(torch.tensor([c for *_, c in draws], dtype=torch.float64).prod())
        yield ([pair for pair, *_ in draws], [active for _, active, _ in draws]), chance


def expectation(
    net: Supernet, probs: list[list[float]], x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> list[Tensor]:
    """Of the two-path estimate, summed over all draws: no sampling noise."""
    total = [torch.zeros(len(p), dtype=torch.float64) for p in probs]
    for (pairs, active), chance in all_draws(probs):
        force(monkeypatch, pairs, active)
        found = TwoPath().grads(net, x, torch.tensor([0]), *rngs(0))
        total = [t + chance * grad for t, grad in zip(total, found.grads, strict=True)]
    return total


def test_with_two_ops_and_an_affine_loss_the_expectation_is_the_exact_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = torch.Generator().manual_seed(0)
    matrices = [[torch.randn(2, 2, generator=rng).double() for _ in "ab"] for _ in range(2)]
    weight, x = torch.randn(2, generator=rng).double(), torch.ones(1, 2, 1, 1).double()
    probs = [[0.7, 0.3], [0.2, 0.8]]

    def loss(y: Tensor) -> Tensor:
        return 9.0 + weight @ y.flatten()

    net = supernet_of(matrices, probs, loss)
    alphas = [alpha.detach().clone().requires_grad_() for alpha in net.alphas()]
    p, q = (alpha.softmax(0) for alpha in alphas)
    losses = [
        p[i] * q[j] * loss(matrices[1][j] @ matrices[0][i] @ x.flatten())
        for i, j in product(range(2), repeat=2)
    ]
    exact = torch.autograd.grad(torch.stack(losses).sum(), alphas)
    for found, expected in zip(expectation(net, probs, x, monkeypatch), exact, strict=True):
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_with_three_ops_the_expectation_has_the_sign_but_not_the_size_of_the_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # p = (.6, .3, .1) and losses (1, 2, 0): the exact gradient is (-.120, .240, -.120).
    probs, one = [[0.6, 0.3, 0.1]], torch.ones(1, 1).double()
    net = supernet_of([[1 * one, 2 * one, 0 * one]], probs, lambda y: 1.0 + y.sum())
    (found,) = expectation(net, probs, torch.ones(1, 1, 1, 1).double(), monkeypatch)
    assert found.tolist() == pytest.approx([-0.131, 0.186, -0.055], abs=5e-4)


def test_under_a_quadratic_loss_the_estimate_is_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ops returning 0 and 1, loss (y - .2)**2, p = (.8, .2): the exact gradient is -+.096.
    probs, one = [[0.8, 0.2]], torch.ones(1, 1).double()
    net = supernet_of([[0 * one, one]], probs, lambda y: 1.0 + (y.sum() - 0.2) ** 2)
    (found,) = expectation(net, probs, torch.ones(1, 1, 1, 1).double(), monkeypatch)
    assert found.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
