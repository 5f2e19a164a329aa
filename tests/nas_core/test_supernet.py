"""Supernet: its size, its paths compared with plain networks, and frozen passes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.network import Network
from nas_core.space import MOBILE_OPS, Stage, chain
from nas_core.supernet import Supernet
from tests.support.tiny import K3, K5, all_architectures, two_sites

SPACE = two_sites()


def a_supernet() -> Supernet:
    return Supernet(SPACE, torch.Generator().manual_seed(0))


def images() -> Tensor:
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def weights_of_path(net: Supernet, architecture: Architecture) -> dict[str, Tensor]:
    """State of the supernet under the names of the plain network."""
    parts: list[tuple[str, nn.Module]] = [("stem", net.stem), ("head", net.head)]
    chosen = [net.op(s, c) for s, c in enumerate(architecture.path())]
    kept = [op for op, name in zip(chosen, architecture.ops, strict=True) if name != "skip"]
    parts += [(f"blocks.{i}", op) for i, op in enumerate(kept)]
    return {f"{p}.{name}": v for p, module in parts for name, v in module.state_dict().items()}


def leaves_of(output: Tensor) -> Iterator[Tensor]:
    """Leaf tensors that a backward pass from `output` would give a gradient."""
    seen, waiting = set(), [output.grad_fn]
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [parent for parent, _ in node.next_functions]


def test_the_supernet_of_the_released_search_has_16_03_million_weights() -> None:
    space = chain(
        "released",
        stages=[
            Stage(*stage)
            for stage in zip(
                (24, 40, 80, 96, 192, 320), (4, 4, 4, 4, 4, 1), (2, 2, 2, 1, 2, 1), strict=True
            )
        ],
        ops=MOBILE_OPS,
        in_channels=3,
        resolution=224,
        classes=1000,
        stem_channels=32,
        stem_stride=2,
        first_channels=16,
        head_channels=1280,
    )
    net = Supernet(space, torch.Generator())
    assert round(sum(w.numel() for w in net.weights()) / 1e6, 2) == 16.03


def test_weights_and_alphas_share_nothing_and_are_everything() -> None:
    net = a_supernet()
    weights, alphas = {id(w) for w in net.weights()}, {id(a) for a in net.alphas()}
    assert not weights & alphas
    assert weights | alphas == {id(p) for p in net.parameters()}


@pytest.mark.parametrize("architecture", all_architectures(SPACE), ids=lambda a: "/".join(a.ops))
def test_a_path_computes_what_the_plain_network_computes(architecture: Architecture) -> None:
    net, network = a_supernet(), architecture.build()
    assert isinstance(network, Network)
    network.load_state_dict(weights_of_path(net, architecture))
    torch.testing.assert_close(net(images(), architecture.path()), network(images()))


def test_alphas_start_next_to_zero() -> None:
    space = two_sites(("sepconv_k3", "skip"), sites=150)
    values = torch.cat([*Supernet(space, torch.Generator().manual_seed(0)).alphas()]).detach()
    assert values.std().item() == pytest.approx(1e-3, rel=0.2)
    assert values.mean().item() == pytest.approx(0.0, abs=4e-3 / len(values) ** 0.5)


def test_probabilities_are_the_softmax_of_the_alphas() -> None:
    net = a_supernet()
    for p, log_p, alpha in zip(net.probs(), net.log_probs(), net.alphas(), strict=True):
        expected = alpha.detach().exp() / alpha.detach().exp().sum()
        torch.testing.assert_close(p, expected)
        torch.testing.assert_close(log_p, expected.log())
        assert not p.requires_grad


def test_the_same_generator_draws_the_same_supernet() -> None:
    first, second = a_supernet().state_dict(), a_supernet().state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_frozen_trace_changes_no_weight_and_no_buffer() -> None:
    net = a_supernet().train()
    before = copy.deepcopy(net.state_dict())
    with net.frozen():
        net.trace(images(), [0, 1])
        net.candidate(1, 2, net.stem(images()))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("path", [[0, 1], [2, 0], [1, 2], [2, 2]])
def test_in_a_frozen_trace_gradients_reach_the_first_output_and_nothing_before(
    path: list[int],
) -> None:
    net = a_supernet().train()
    with net.frozen():
        trace = net.trace(images(), path)
    assert list(leaves_of(trace.logits)) == [trace.outputs[0]]


def test_a_frozen_trace_normalises_with_the_batch() -> None:
    net = a_supernet().train()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        norm.running_mean.fill_(1e6)
    with net.frozen():
        frozen = net.trace(images(), [0, 1]).logits
    assert torch.equal(frozen, net(images(), [0, 1]))


def test_a_trace_remembers_what_comes_into_every_site() -> None:
    net = a_supernet().train()
    with net.frozen():
        trace = net.trace(images(), [0, 1])
        stem = net.stem(images())
        first = net.op(0, 0)(stem)
    for result, expected in zip(trace.inputs, [stem, first], strict=True):
        assert torch.equal(result, expected)
        assert not result.requires_grad


def test_a_candidate_is_an_op_without_gradient() -> None:
    net = a_supernet().train()
    x = net.stem(images()).detach().requires_grad_()
    with net.frozen():
        result, expected = net.candidate(1, 0, x), net.op(1, 0)(x)
    assert torch.equal(result, expected)
    assert not result.requires_grad


def test_a_site_given_weights_runs_all_ops_and_adds_them_up() -> None:
    net = a_supernet().eval()
    shares = torch.tensor([0.5, 0.2, 0.3])
    x = net.stem(images())
    mixed = sum(share * net.op(0, j)(x) for j, share in enumerate(shares))
    expected = net.head(net.op(1, 1)(mixed))
    torch.testing.assert_close(net(images(), [shares, 1]), expected)


def test_after_freezing_weights_train_and_statistics_move_again() -> None:
    net = a_supernet().train()
    with pytest.raises(RuntimeError, match="stop"), net.frozen():
        raise RuntimeError("stop")
    before = copy.deepcopy(net.stem.state_dict())
    net(images(), [0, 1]).sum().backward()
    assert all(w.requires_grad for w in net.weights())
    changed = {n for n, v in net.stem.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_a_weight_pass_gives_gradients_to_the_ops_of_the_path_alone() -> None:
    net = a_supernet().train()
    net(images(), [0, 1]).sum().backward()
    trained = {name for name, p in net.named_parameters() if p.grad is not None}
    used = ("stem.", "head.", "sites.0.0.", "sites.1.1.")
    assert trained == {n for n, _ in net.named_parameters() if n.startswith(used)}
    assert SPACE.sites[0].ops == (K3, K5, "skip")
