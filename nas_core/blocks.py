"""The modules that all networks are made of, and the plain network.

Source: ProxylessNAS, section 4.1, and the released networks: ReLU6, BatchNorm momentum 0.1.
Shapes: N = batch, C = channels, H, W = height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.depthwise import Depthwise
from nas_core.shapes import OpShape, make_divisible

if TYPE_CHECKING:
    pass


class _ClampInPlace(torch.autograd.Function):
    """min(max(x, 0), 6) written over x, remembering only what it wrote."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.clamp_(0.0, 6.0)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        # The bounds themselves have no gradient, so the output tells as much as the input.
        passed: Tensor = torch.ops.aten.hardtanh_backward(grad, y, 0.0, 6.0)
        return passed


class ReLU6(nn.Module):
    """ReLU6 for the output of a BatchNorm, which is overwritten in training.

    torch's own keeps its input beside its output, in place too (it copies it first): twice the
    memory, and a tenth of the time of a training step on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if torch.is_grad_enabled() and x.requires_grad:
            y: Tensor = _ClampInPlace.apply(x)
            return y
        return F.relu6(x)


def conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int, eps: float, groups: int = 1
) -> list[nn.Module]:
    """Convolution without bias, padded to keep the size at stride 1, and its BatchNorm."""
    if groups == in_channels == out_channels:
        convolution: nn.Conv2d = Depthwise(in_channels, kernel, stride)
    else:
        convolution = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
    return [convolution, nn.BatchNorm2d(out_channels, eps=eps, momentum=0.1)]


class SqueezeExcite(nn.Module):
    """Scales each channel by a factor in [0, 1] that follows from the means of all channels.

    Two 1x1 convolutions with bias, the narrow part a quarter as wide as the input (rounded by
    `make_divisible`), ReLU between them and a hard sigmoid behind them. The mean is written as in
    `Pool`.
    Source: Hu et al., "Squeeze-and-Excitation Networks"; hard sigmoid and the quarter of the
    expanded channels: Howard et al., "Searching for MobileNetV3", section 5.3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = make_divisible(channels / 4)
        self.scale = nn.Sequential(
            nn.Conv2d(channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * F.hardsigmoid(self.scale(x.mean((2, 3), keepdim=True)))


class MBConv(nn.Module):
    """Mobile inverted bottleneck: expand 1x1, depthwise, project 1x1; shortcut where shape is kept.

    An expansion of 1 has no expand convolution. Squeeze-and-excite stands behind the activation of
    the depthwise convolution.
    """

    def __init__(
        self,
        shape: OpShape,
        kernel: int,
        expansion: int,
        *,
        activation: Callable[[], nn.Module] = ReLU6,
        has_squeeze: bool = False,
    ) -> None:
        super().__init__()
        hidden = shape.in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [
                *conv_bn(shape.in_channels, hidden, 1, 1, shape.bn_eps),
                activation(),
            ]
        layers += conv_bn(hidden, hidden, kernel, shape.stride, shape.bn_eps, groups=hidden)
        layers.append(activation())
        if has_squeeze:
            layers.append(SqueezeExcite(hidden))
        layers += conv_bn(hidden, shape.out_channels, 1, 1, shape.bn_eps)
        self.layers = nn.Sequential(*layers)
        self.has_shortcut = shape.keeps_shape

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


class Skip(nn.Module):
    """The identity; a network leaves it out."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` itself."""
        return x


class Pool(nn.Module):
    """Mean over all positions, written as phone runtimes run it in one piece."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return x.mean((2, 3), keepdim=True).flatten(1)


@torch.no_grad()
def initialise(module: nn.Module, rng: torch.Generator) -> None:
    """Draw all weights anew, in the order of `module.modules()`.

    Convolutions: normal with std sqrt(2 / (kernel * kernel * out)), bias 0; linear layers: uniform
    within 1 / sqrt(in), bias 0; BatchNorm: 1 and 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            layer.weight.normal_(0.0, (2.0 / fan_out) ** 0.5, generator=rng)
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=rng)
            layer.bias.zero_()
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.weight.fill_(1.0)
            layer.bias.zero_()
