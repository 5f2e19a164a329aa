"""Operations of cells, by name.

To add an operation, write one function here and one line in `CELL_OPS`. Operations with weights
begin with a ReLU; their BatchNorms have a momentum of 0.1.
Source: NASNet (Zoph et al., 2018), AmoebaNet (Real et al., 2019), DARTS (Liu et al., 2019), and the
releases named in `genotypes.py`.
Shapes: N = batch, C = channels, H, W = height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.blocks import conv_bn
from nas_core.ops import OpBuilder
from nas_core.shapes import OpShape


class FactorizedReduction(nn.Module):
    """Halves height and width without dropping pixels.

    Even rows and columns go through one convolution, odd ones through another; each produces half
    of the channels. The shifted image is padded by a row and a column of zeros, so that odd sizes
    work as well.
    """

    def __init__(self, in_channels: int, out_channels: int, eps: float) -> None:
        super().__init__()
        half = out_channels // 2
        self.even = nn.Conv2d(in_channels, half, 1, 2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - half, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=eps, momentum=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / 2), ceil(W / 2))."""
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        y: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))
        return y


def fitted(shape: OpShape) -> nn.Module:
    """Module that adapts a state to other channels, and halves its size if the stride is 2."""
    if shape.stride == 2:
        reduction = FactorizedReduction(shape.in_channels, shape.out_channels, shape.bn_eps)
        return nn.Sequential(nn.ReLU(), reduction)
    return nn.Sequential(
        nn.ReLU(), *conv_bn(shape.in_channels, shape.out_channels, 1, 1, shape.bn_eps)
    )


def skip_connect(shape: OpShape) -> nn.Module:
    """Identity if input and output have the same shape, else the module of `fitted`."""
    return nn.Identity() if shape.keeps_shape else fitted(shape)


def pooling(kind: type[nn.AvgPool2d] | type[nn.MaxPool2d]) -> OpBuilder:
    """3x3 pooling, plus a 1x1 convolution if channels change. Means exclude the padding."""

    def build(shape: OpShape) -> nn.Module:
        if kind is nn.AvgPool2d:
            pool: nn.Module = nn.AvgPool2d(3, shape.stride, 1, count_include_pad=False)
        else:
            pool = nn.MaxPool2d(3, shape.stride, 1)
        if shape.in_channels == shape.out_channels:
            return pool
        return nn.Sequential(
            pool, *conv_bn(shape.in_channels, shape.out_channels, 1, 1, shape.bn_eps)
        )

    return build


def depthwise(shape: OpShape, kernel: int, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise convolution, 1x1 convolution, BatchNorm."""
    channels = shape.in_channels
    padding = kernel // 2 * dilation
    return [
        nn.ReLU(),
        nn.Conv2d(
            channels, channels, kernel, shape.stride, padding, dilation, channels, bias=False
        ),
        *conv_bn(channels, shape.out_channels, 1, 1, shape.bn_eps),
    ]


def sep_conv(kernel: int) -> OpBuilder:
    """Separable convolution, applied twice; the first one has the stride."""

    def build(shape: OpShape) -> nn.Module:
        again = OpShape(shape.out_channels, shape.out_channels, 1, shape.bn_eps)
        return nn.Sequential(*depthwise(shape, kernel), *depthwise(again, kernel))

    return build


def dil_conv(kernel: int) -> OpBuilder:
    """Separable convolution with dilation 2, applied once."""

    def build(shape: OpShape) -> nn.Module:
        return nn.Sequential(*depthwise(shape, kernel, dilation=2))

    return build


def conv_7x1_1x7(shape: OpShape) -> nn.Module:
    """1x7, then 7x1 convolution on a quarter of the channels, between two 1x1 convolutions.

    The bottleneck is taken from the release: without it AmoebaNet-A would have an eighth more
    parameters than published.
    """
    narrow, stride, eps = max(1, shape.out_channels // 4), shape.stride, shape.bn_eps

    def line(kernel: tuple[int, int], strides: tuple[int, int]) -> list[nn.Module]:
        padding = (kernel[0] // 2, kernel[1] // 2)
        convolution = nn.Conv2d(narrow, narrow, kernel, strides, padding, bias=False)
        return [nn.ReLU(), convolution, nn.BatchNorm2d(narrow, eps=eps, momentum=0.1)]

    return nn.Sequential(
        *(nn.ReLU(), *conv_bn(shape.in_channels, narrow, 1, 1, eps)),
        *line((1, 7), (1, stride)),
        *line((7, 1), (stride, 1)),
        *(nn.ReLU(), *conv_bn(narrow, shape.out_channels, 1, 1, eps)),
    )


CELL_OPS: dict[str, OpBuilder] = {
    "skip_connect": skip_connect,
    "avg_pool_3x3": pooling(nn.AvgPool2d),
    "max_pool_3x3": pooling(nn.MaxPool2d),
    "sep_conv_3x3": sep_conv(3),
    "sep_conv_5x5": sep_conv(5),
    "sep_conv_7x7": sep_conv(7),
    "dil_conv_3x3": dil_conv(3),
    "dil_conv_5x5": dil_conv(5),
    "conv_7x1_1x7": conv_7x1_1x7,
}


def build_cell_op(name: str, shape: OpShape) -> nn.Module:
    """Build the module of one edge.

    Raises:
        ValueError: there is no such operation.
    """
    if name not in CELL_OPS:
        raise ValueError(
            f"{name!r} is not an operation of cells; expected one of {', '.join(CELL_OPS)}"
        )
    return CELL_OPS[name](shape)
