"""Chain-like networks of the literature, for any image size, number of classes and strides.

Every network is an `nn.Sequential` with the head of the derived networks (`Pool`, dropout,
classifier), which phone runtimes execute as one piece. Layers have torchvision's order, so that its
weights fit, and its initialization. BatchNorm has momentum 0.1 everywhere (torchvision's MNASNet
has 3e-4, and evaluates at chance level after a short training). A block that downsamples in the
published network has no identity shortcut, whatever its stride is here.

"Strides" in the docstrings of the builders lists the layers that take `strides`, in order.
Shapes: N = batch, C = channels, H, W = height and width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas_core.blocks import MBConv, Pool, ReLU6, conv_bn
from nas_core.shapes import OpShape, make_divisible

if TYPE_CHECKING:
    from nas_core.baselines.sizes import BaselineSizes

EPS = 1e-5
"""Epsilon of BatchNorm in all networks but MobileNetV1."""

Activation = Callable[[], nn.Module]
Stage = tuple[int, int, int, int, bool]
"""Expansion, width, kernel, blocks, and whether the first block has a stride."""

# Sandler et al., "MobileNetV2" (2018), table 2.
MOBILENET_V2: tuple[Stage, ...] = (
    (1, 16, 3, 1, False),
    (6, 24, 3, 2, True),
    (6, 32, 3, 3, True),
    (6, 64, 3, 4, True),
    (6, 96, 3, 3, False),
    (6, 160, 3, 3, True),
    (6, 320, 3, 1, False),
)
# Tan et al., "MnasNet" (2019), B1: figure 7 without squeeze-and-excite.
MNASNET: tuple[Stage, ...] = (
    (1, 16, 3, 1, False),
    (3, 24, 3, 3, True),
    (3, 40, 5, 3, True),
    (6, 80, 5, 3, True),
    (6, 96, 3, 2, False),
    (6, 192, 5, 4, True),
    (6, 320, 3, 1, False),
)
# Ma et al., "ShuffleNet V2" (2018), table 5: channels of stem, stages and last convolution.
SHUFFLENET_V2 = {
    0.5: (24, 48, 96, 192, 1024),
    1.0: (24, 116, 232, 464, 1024),
    1.5: (24, 176, 352, 704, 1024),
    2.0: (24, 244, 488, 976, 2048),
}
SHUFFLENET_V2_BLOCKS = (4, 8, 4)
# He et al., "Deep Residual Learning" (2016), table 1: blocks of the stages.
RESNET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
DEEP_RESNET = 50
"""Depth from which blocks are bottlenecks."""


def mobilenet_v1(baseline: BaselineSizes, width: float, dropout: float) -> nn.Module:
    """MobileNet: a chain of separable convolutions.

    Strides: the stem, then the blocks that double the channels.
    Source: Howard et al., "MobileNets" (2017), table 1; ReLU6 and eps 1e-3 as in its release.
    """
    eps, stem_stride = 1e-3, baseline.place_strides[0]
    # From 128 channels on, the first block of each width downsamples.
    strides = iter(baseline.place_strides[1:])
    channels = make_divisible(32 * width)
    layers = [*conv_bn(baseline.in_channels, channels, 3, stem_stride, eps), ReLU6()]
    for stage, blocks in ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2)):
        for block in range(blocks):
            stride = next(strides) if block == 0 and stage > 64 else 1
            layers += [*conv_bn(channels, channels, 3, stride, eps, groups=channels), ReLU6()]
            out_channels = make_divisible(stage * width)
            layers += [*conv_bn(channels, out_channels, 1, 1, eps), ReLU6()]
            channels = out_channels
    return _with_head(layers, nn.Linear(channels, baseline.classes), dropout)


def mobilenet_v2(baseline: BaselineSizes, width: float, dropout: float) -> nn.Module:
    """MobileNetV2. Strides: the stem, then the first block of each downsampling stage."""
    last = make_divisible(1280 * max(1.0, width))
    layers = _inverted(baseline, MOBILENET_V2, width, last, ReLU6)
    classifier = nn.Linear(last, baseline.classes)
    nn.init.normal_(classifier.weight, 0, 0.01)
    nn.init.zeros_(classifier.bias)
    return _with_initial_weights(_with_head(layers, classifier, dropout))


def mnasnet(baseline: BaselineSizes, width: float, dropout: float) -> nn.Module:
    """MnasNet-B1. Strides: the stem, then the first block of each downsampling stage."""
    layers = _inverted(baseline, MNASNET, width, 1280, _relu)
    classifier = nn.Linear(1280, baseline.classes)
    nn.init.kaiming_uniform_(classifier.weight, mode="fan_out", nonlinearity="sigmoid")
    nn.init.zeros_(classifier.bias)
    return _with_initial_weights(_with_head(layers, classifier, dropout))


def _inverted(
    baseline: BaselineSizes,
    stages: Iterable[Stage],
    width: float,
    last: int,
    activation: Activation,
) -> Iterator[nn.Module]:
    """Yield the stem, the inverted bottlenecks, and the convolution to the last channels."""
    stem_stride, *later = baseline.place_strides
    strides, channels = iter(later), make_divisible(32 * width)
    yield from conv_bn(baseline.in_channels, channels, 3, stem_stride, EPS)
    yield activation()
    for expansion, stage, kernel, blocks, has_stride in stages:
        for number in range(blocks):
            downsamples = has_stride and number == 0
            shape = OpShape(
                channels, make_divisible(stage * width), next(strides) if downsamples else 1, EPS
            )
            block = MBConv(shape, kernel, expansion, activation=activation)
            block.has_shortcut = shape.keeps_shape and not downsamples
            yield block
            channels = shape.out_channels
    yield from conv_bn(channels, last, 1, 1, EPS)
    yield activation()


class ShuffleBlock(nn.Module):
    """Passes one half of the channels on, convolves the other, and interleaves both halves.

    The first block of a stage convolves all channels, in two branches.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, is_first: bool) -> None:
        super().__init__()
        half, self.is_first = out_channels // 2, is_first
        aside: list[nn.Module] = []
        if is_first:
            aside += conv_bn(in_channels, in_channels, 3, stride, EPS, groups=in_channels)
            aside += [*conv_bn(in_channels, half, 1, 1, EPS), _relu()]
        self.aside = nn.Sequential(*aside)
        self.layers = nn.Sequential(
            *conv_bn(in_channels if is_first else half, half, 1, 1, EPS),
            _relu(),
            *conv_bn(half, half, 3, stride, EPS, groups=half),
            *conv_bn(half, half, 1, 1, EPS),
            _relu(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        left, right = (x, x) if self.is_first else x.chunk(2, dim=1)
        y = torch.cat([self.aside(left), self.layers(right)], dim=1)
        return torch.unflatten(y, 1, (2, -1)).transpose(1, 2).flatten(1, 2)


def shufflenet_v2(baseline: BaselineSizes, width: float, dropout: float) -> nn.Module:
    """ShuffleNetV2. Strides: the stem, its max-pool, then the first block of each stage."""
    channels, *stages, last = SHUFFLENET_V2[width]
    stem, pool, *strides = baseline.place_strides
    layers = [*conv_bn(baseline.in_channels, channels, 3, stem, EPS), _relu()]
    layers.append(nn.MaxPool2d(3, pool, 1))
    for out_channels, blocks, stride in zip(stages, SHUFFLENET_V2_BLOCKS, strides, strict=True):
        layers.append(ShuffleBlock(channels, out_channels, stride, is_first=True))
        for _ in range(blocks - 1):
            layers.append(ShuffleBlock(out_channels, out_channels, 1, is_first=False))
        channels = out_channels
    layers += [*conv_bn(channels, last, 1, 1, EPS), _relu()]
    return _with_head(layers, nn.Linear(last, baseline.classes), dropout)


class ResidualBlock(nn.Module):
    """Residual block: two 3x3 convolutions or a bottleneck, and a shortcut around them."""

    def __init__(
        self, in_channels: int, width: int, stride: int, *, is_deep: bool, is_place: bool
    ) -> None:
        super().__init__()
        out_channels = 4 * width if is_deep else width
        if is_deep:
            layers = [*conv_bn(in_channels, width, 1, 1, EPS), _relu()]
            layers += [*conv_bn(width, width, 3, stride, EPS), _relu()]
            layers += conv_bn(width, out_channels, 1, 1, EPS)
        else:
            layers = [*conv_bn(in_channels, width, 3, stride, EPS), _relu()]
            layers += conv_bn(width, width, 3, 1, EPS)
        self.layers = nn.Sequential(*layers)
        is_changed = is_place or in_channels != out_channels
        around = conv_bn(in_channels, out_channels, 1, stride, EPS) if is_changed else []
        self.shortcut, self.activation = nn.Sequential(*around), _relu()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y: Tensor = self.activation(self.layers(x) + self.shortcut(x))
        return y


def resnet(baseline: BaselineSizes, depth: int, dropout: float) -> nn.Module:
    """ResNet. Strides: the stem, its max-pool, then the first block of the last three stages.

    The shortcut of a block has the block's stride. Bottlenecks have their stride at the 3x3
    convolution, as torchvision's do.
    """
    is_deep, channels = depth >= DEEP_RESNET, 64
    stem, pool, *strides = baseline.place_strides
    layers = [*conv_bn(baseline.in_channels, channels, 7, stem, EPS), _relu()]
    layers.append(nn.MaxPool2d(3, pool, 1))
    for number, (blocks, stride) in enumerate(zip(RESNET[depth], [1, *strides], strict=True)):
        width = 64 * 2**number
        for block in range(blocks):
            is_place = block == 0 and number > 0
            own_stride = stride if is_place else 1
            layers.append(
                ResidualBlock(channels, width, own_stride, is_deep=is_deep, is_place=is_place)
            )
            channels = 4 * width if is_deep else width
    return _with_initial_weights(_with_head(layers, nn.Linear(channels, baseline.classes), dropout))


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def _with_initial_weights(network: nn.Module) -> nn.Module:
    """`network`, its convolutions initialized by fan-out (Kaiming), as in torchvision."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _with_head(layers: Iterable[nn.Module], classifier: nn.Module, dropout: float) -> nn.Module:
    parts = OrderedDict(
        features=nn.Sequential(*layers),
        pool=Pool(),
        dropout=nn.Dropout(dropout),
        classifier=classifier,
    )
    return nn.Sequential(parts)
