"""Building blocks of all networks.

Source: ProxylessNAS, section 4.1, and the released networks: ReLU6, BatchNorm momentum 0.1.
Shapes: N = batch, C = channels, H, W = height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.depthwise import Depthwise
from nas_core.shapes import OpShape, make_divisible


class _ClampInPlace(torch.autograd.Function):
    """min(max(x, 0), 6), written over x; only the output is saved for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.clamp_(0.0, 6.0)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        # The bounds themselves have no gradient, so the output is as good as the input.
        passed: Tensor = torch.ops.aten.hardtanh_backward(grad, y, 0.0, 6.0)
        return passed


class ReLU6(nn.Module):
    """ReLU6 that overwrites its input in training; meant for the output of a BatchNorm.

    `nn.ReLU6` keeps its input beside its output, even with `inplace=True` (it makes a copy first):
    that takes twice the memory, and a tenth of the time of a training step on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        if torch.is_grad_enabled() and x.requires_grad:
            y: Tensor = _ClampInPlace.apply(x)
            return y
        return F.relu6(x)


def conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int, eps: float, groups: int = 1
) -> list[nn.Module]:
    """Convolution without bias and its BatchNorm; padded so that stride 1 keeps the size."""
    if groups == in_channels == out_channels:
        convolution: nn.Conv2d = Depthwise(in_channels, kernel, stride)
    else:
        convolution = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
    return [convolution, nn.BatchNorm2d(out_channels, eps=eps, momentum=0.1)]


class SqueezeExcite(nn.Module):
    """Scales each channel by a factor in [0, 1] computed from the means of all channels.

    Two 1x1 convolutions with bias, with a ReLU between them and a hard sigmoid after them. The
    hidden width is a quarter of the input's, rounded by `make_divisible`. The mean is computed as
    in `Pool`.
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
    """Mobile inverted bottleneck: 1x1 expansion, depthwise convolution, 1x1 projection.

    A shortcut is added if input and output have the same shape. An expansion of 1 has no expansion
    convolution. Squeeze-and-excite follows the activation of the depthwise convolution.
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
    """Identity; left out of derived networks."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` itself."""
        return x


class Pool(nn.Module):
    """Mean over all positions, in the form that phone runtimes execute as one piece."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return x.mean((2, 3), keepdim=True).flatten(1)


@torch.no_grad()
def initialise(module: nn.Module, rng: torch.Generator) -> None:
    """Initialize all weights, in the order of `module.modules()`.

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
