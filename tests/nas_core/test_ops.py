"""Ops beyond the published space: compared with torchvision's blocks; shapes; export."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from nas_core.blocks import SqueezeExcite
from nas_core.ops import OPS, build_op
from nas_core.shapes import OpShape

KINDS = ("mbconv_k3_e3", "mbconv_k5_e3_se", "mbconv_k7_e3_hswish", "sepconv_k3", "skip")


def moved(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in double precision, with random statistics and weights."""
    rng = torch.Generator().manual_seed(seed)
    for name, values in module.state_dict().items():
        if name.endswith("running_var"):
            values.copy_(0.5 + torch.rand(values.shape, generator=rng))
        elif values.is_floating_point():
            values.copy_(torch.randn(values.shape, generator=rng) / values[0].numel() ** 0.5)
    return module.double().eval()


def with_weights_of(module: nn.Module, other: nn.Module) -> nn.Module:
    """Copy the weights of `other`, in order."""
    weights = list(other.state_dict().values())
    names = list(module.state_dict())
    module.load_state_dict(dict(zip(names, weights, strict=True)))
    return module.double().eval()


def image(channels: int) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, 9, 9, generator=rng, dtype=torch.float64)


def torchvision_block(kernel: int, expansion: int, out: int, stride: int, *, se: bool) -> nn.Module:
    from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig

    config = InvertedResidualConfig(16, kernel, 16 * expansion, out, se, "HS", stride, 1, 1.0)
    return moved(InvertedResidual(config, partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1)))


def of_kind(suffix: str) -> list[str]:
    return [name for name in OPS if name.endswith(suffix)]


@pytest.mark.parametrize("op", of_kind("_hswish"))
@pytest.mark.parametrize(("out", "stride"), [(16, 1), (16, 2), (24, 1)])
def test_an_mbconv_with_hswish_is_the_block_of_mobilenet_v3(op: str, out: int, stride: int) -> None:
    published = torchvision_block(int(op[8]), int(op[11]), out, stride, se=False)
    ours = with_weights_of(build_op(op, OpShape(16, out, stride)), published)
    torch.testing.assert_close(ours(image(16)), published(image(16)))


@pytest.mark.parametrize("op", of_kind("_se"))
@pytest.mark.parametrize(("out", "stride"), [(16, 1), (16, 2), (24, 1)])
def test_an_mbconv_with_squeeze_is_the_block_of_mobilenet_v3_with_relu6(
    op: str, out: int, stride: int
) -> None:
    published = torchvision_block(int(op[8]), int(op[11]), out, stride, se=True)
    for part in (layer for layer in published.modules() if isinstance(layer, nn.Sequential)):
        for name, layer in part.named_children():
            if isinstance(layer, nn.Hardswish):
                setattr(part, name, nn.ReLU6())
    ours = with_weights_of(build_op(op, OpShape(16, out, stride)), published)
    torch.testing.assert_close(ours(image(16)), published(image(16)))


def test_squeeze_and_excite_answers_like_that_of_torchvision() -> None:
    from torchvision.ops import SqueezeExcitation

    published = moved(SqueezeExcitation(48, 16, scale_activation=nn.Hardsigmoid))
    ours = with_weights_of(SqueezeExcite(48), published)
    torch.testing.assert_close(ours(image(48)), published(image(48)))


@pytest.mark.parametrize("op", [name for name in OPS if name != "skip"])
@pytest.mark.parametrize("shape", [OpShape(8, 8, 1), OpShape(8, 16, 1), OpShape(8, 16, 2)], ids=str)
def test_an_op_gives_the_channels_and_the_size_of_its_site(op: str, shape: OpShape) -> None:
    size = -(-9 // shape.stride)  # rounded up
    y = build_op(op, shape)(torch.randn(2, 8, 9, 9))
    assert y.shape == (2, shape.out_channels, size, size)


@pytest.mark.slow
@pytest.mark.parametrize("op", KINDS)
def test_an_op_can_be_exported_with_a_free_batch_size(op: str) -> None:
    block = build_op(op, OpShape(8, 8, 1)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = {"x": {0: batch}}
    program = torch.export.export(block, (torch.randn(4, 8, 6, 6),), dynamic_shapes=shapes)
    x = torch.randn(3, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), block(x))
