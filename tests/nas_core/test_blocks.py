"""Blocks: outputs compared with plain functional calls, and weight initialization."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.blocks import MBConv, Pool, ReLU6, initialise
from nas_core.ops import OPS, build_op
from nas_core.shapes import OpShape
from nas_core.space import MOBILE_OPS, proxyless_imagenet, proxyless_small
from tests.support.tiny import K3, two_sites


def conv_bn_by_hand(x: Tensor, weights: list[Tensor], stride: int, groups: int) -> Tensor:
    """Apply the next convolution and BatchNorm of `weights`, with batch statistics."""
    conv, scale, shift = (weights.pop(0) for _ in range(3))
    y = F.conv2d(x, conv, stride=stride, padding=conv.shape[-1] // 2, groups=groups)
    mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), unbiased=False, keepdim=True)
    return (y - mean) / (var + 1e-3).sqrt() * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


@pytest.mark.parametrize("op", [name for name in MOBILE_OPS if name != "skip"])
@pytest.mark.parametrize(("out_channels", "stride"), [(4, 1), (4, 2), (6, 1)])
def test_an_mbconv_is_expand_depthwise_project(op: str, out_channels: int, stride: int) -> None:
    kernel, expansion = int(op[8]), int(op[11])
    block = build_op(op, OpShape(4, out_channels, stride)).double()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    weights = [parameter.detach() for parameter in block.parameters()]
    assert [tuple(w.shape) for w in weights if w.dim() == 4] == [
        (4 * expansion, 4, 1, 1),
        (4 * expansion, 1, kernel, kernel),
        (out_channels, 4 * expansion, 1, 1),
    ]
    y = conv_bn_by_hand(x, weights, 1, 1).clamp(0, 6)
    y = conv_bn_by_hand(y, weights, stride, 4 * expansion).clamp(0, 6)
    y = conv_bn_by_hand(y, weights, 1, 1)
    expected = x + y if (stride, out_channels) == (1, 4) else y
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize(("out_channels", "stride"), [(4, 1), (4, 2), (6, 1)])
def test_a_sepconv_is_depthwise_project(kernel: int, out_channels: int, stride: int) -> None:
    block = build_op(f"sepconv_k{kernel}", OpShape(4, out_channels, stride)).double()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    weights = [parameter.detach() for parameter in block.parameters()]
    y = conv_bn_by_hand(x, weights, stride, 4).clamp(0, 6)
    y = conv_bn_by_hand(y, weights, 1, 1)
    assert not weights
    torch.testing.assert_close(block(x), x + y if (stride, out_channels) == (1, 4) else y)


def test_no_op_writes_to_its_input() -> None:
    for op in OPS:
        x = torch.randn(2, 4, 8, 8)
        kept = x.clone()
        build_op(op, OpShape(4, 4, 1))(x)
        assert torch.equal(x, kept), op


def test_relu6_has_the_values_and_slopes_of_torch_at_its_bounds_too() -> None:
    leaf = torch.tensor([-1.0, 0.0, 1e-9, 3.0, 6.0 - 1e-9, 6.0, 7.0], dtype=torch.float64)
    weights = torch.arange(1.0, 8.0, dtype=torch.float64)
    result = []
    for relu6 in (ReLU6(), nn.ReLU6()):
        x = leaf.clone().requires_grad_()
        y = relu6(x * 1)  # a leaf itself cannot be overwritten
        (slope,) = torch.autograd.grad((weights * y).sum(), x)
        result.append((y.tolist(), slope.tolist()))
    assert result[0] == result[1]


def test_relu6_is_written_over_its_input_in_training_only() -> None:
    x = torch.randn(2, 3, requires_grad=True) * 1
    assert ReLU6()(x).data_ptr() == x.data_ptr()
    with torch.no_grad():
        kept = x.clone()
        assert ReLU6()(x).data_ptr() != x.data_ptr()
        assert torch.equal(x, kept)


def test_the_pool_is_the_mean_over_all_positions() -> None:
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(Pool()(x), F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_an_expansion_of_one_has_no_expand_convolution() -> None:
    block = MBConv(OpShape(4, 8, 1), kernel=3, expansion=1)
    kernels = [m.kernel_size for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [(3, 3), (1, 1)]


def test_a_skip_where_the_shape_changes_is_refused() -> None:
    with pytest.raises(ValueError, match="'skip' cannot stand at a site from 4 to 8 channels"):
        build_op("skip", OpShape(4, 8, 1))


def test_an_unknown_op_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="'mbconv' is not an op; expected one of mbconv_k3_e3, "):
        build_op("mbconv", OpShape(4, 4, 1))


def test_every_batchnorm_has_the_published_momentum_and_epsilon() -> None:
    network = Architecture.reference(proxyless_small()).build()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, 1e-3)}


def test_convolutions_are_drawn_with_the_published_deviation() -> None:
    layer = nn.Conv2d(64, 64, 5)
    initialise(layer, torch.Generator().manual_seed(0))
    expected = (2 / (5 * 5 * 64)) ** 0.5
    assert layer.weight.std().item() == pytest.approx(expected, rel=0.01)
    assert abs(layer.weight.mean().item()) < 4 * expected / layer.weight.numel() ** 0.5


def test_convolutions_with_a_bias_are_drawn_with_none() -> None:
    layer = nn.Conv2d(8, 8, 1)
    initialise(layer, torch.Generator().manual_seed(0))
    assert layer.bias is not None
    assert not layer.bias.any()


def test_classifiers_are_drawn_uniformly_within_one_over_root_in() -> None:
    layer = nn.Linear(100, 1000)
    initialise(layer, torch.Generator().manual_seed(0))
    assert layer.weight.abs().max().item() <= 0.1
    assert layer.weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.01)
    assert not layer.bias.any()


@pytest.mark.parametrize("op", [K3, "mbconv_k3_e3_se"])
def test_initialising_makes_a_trained_network_new(op: str) -> None:
    network = Architecture.uniform(two_sites((K3, "mbconv_k3_e3_se")), op).build()
    initialise(network, torch.Generator().manual_seed(0))
    new = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(8, 1, 8, 8)).sum().backward()
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    initialise(network, torch.Generator().manual_seed(0))
    for name, value in network.state_dict().items():
        assert torch.equal(value, new[name]), name


def test_the_published_stem_has_a_fixed_block_without_expansion() -> None:
    network = Architecture.reference(proxyless_imagenet()).build()
    kernels = [m.kernel_size for m in network.stem.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [(3, 3), (3, 3), (1, 1)]
    assert network.stem(torch.zeros(2, 3, 32, 32)).shape == (2, 16, 16, 16)
