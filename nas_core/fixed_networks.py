"""MobileNetV1, and networks of torchvision, for any images, classes and strides.

Every network is a `nn.Sequential` of what torchvision builds, with the head of the derived networks
(`Pool`, dropout, classifier) in place of its own: phone runtimes run that pooling in one piece, and
MNASNet loads no weights whose version tag was lost on the way. torchvision is imported when one of
its networks is built. Nothing is downloaded: weights are as torchvision draws them. BatchNorm
momentum is 0.1 everywhere (torchvision's MNASNet has 3e-4, and evaluates at chance after a short
training).
Shapes: N = batch, C = channels, H, W = height and width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from nas_core.blocks import Pool, ReLU6, conv_bn
from nas_core.space import make_divisible

if TYPE_CHECKING:
    from nas_core.baselines import Baseline

Layer = nn.Conv2d | nn.MaxPool2d


def mobilenet_v1(baseline: Baseline, width: float, dropout: float) -> nn.Module:
    """Separable convolutions in a chain. Places: the stem, then those that double the channels.

    Source: Howard et al., "MobileNets" (2017), table 1; ReLU6 and eps 1e-3 as in its release.
    """
    eps, stem_stride = 1e-3, baseline.place_strides[0]
    # From 128 channels on, the first of each width has a stride.
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


def mobilenet_v2(baseline: Baseline, width: float, dropout: float) -> nn.Module:
    """torchvision's. Places: the stem, then the depthwise convolutions of stride 2."""
    network = _models(baseline).MobileNetV2(baseline.classes, width)
    _fit(network, [[layer] for layer in _strided(network)], baseline)
    return _with_head(network.features, network.classifier[-1], dropout)


def mnasnet(baseline: Baseline, width: float, dropout: float) -> nn.Module:
    """torchvision's (B1). Places: the stem, then the depthwise convolutions of stride 2."""
    network = _models(baseline).MNASNet(width, baseline.classes)
    _fit(network, [[layer] for layer in _strided(network)], baseline)
    return _with_head(network.layers, network.classifier[-1], dropout)


def shufflenet_v2(baseline: Baseline, width: float, dropout: float) -> nn.Module:
    """torchvision's. Places: the stem, its max-pool, then the first block of each of the three
    stages, both branches together."""
    build = getattr(_models(baseline), f"shufflenet_v2_x{width:.1f}".replace(".", "_"))
    network = build(weights=None, num_classes=baseline.classes)
    stages = [network.stage2, network.stage3, network.stage4]
    places = [_strided(part) for part in (network.conv1, network.maxpool, *stages)]
    _fit(network, places, baseline)
    layers = [network.conv1, network.maxpool, *stages, network.conv5]
    return _with_head(layers, network.fc, dropout)


def resnet(baseline: Baseline, depth: int, dropout: float) -> nn.Module:
    """torchvision's. Places: the stem, its max-pool, then the first block of the last three stages,
    its shortcut included."""
    network = getattr(_models(baseline), f"resnet{depth}")(
        weights=None, num_classes=baseline.classes
    )
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    places = [_strided(part) for part in (network.conv1, network.maxpool, *stages[1:])]
    _fit(network, places, baseline)
    layers = [network.conv1, network.bn1, network.relu, network.maxpool, *stages]
    return _with_head(layers, network.fc, dropout)


def _models(baseline: Baseline) -> Any:
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError(
            f"'{baseline.name}' is built by torchvision, which cannot be imported ({error}); "
            "install it with: pip install torchvision (requirements.txt says which version)"
        ) from error
    return models


def _with_head(layers: Iterable[nn.Module], classifier: nn.Module, dropout: float) -> nn.Module:
    parts = OrderedDict(
        features=nn.Sequential(*layers),
        pool=Pool(),
        dropout=nn.Dropout(dropout),
        classifier=classifier,
    )
    return nn.Sequential(parts)


def _strided(module: nn.Module) -> list[Layer]:
    """Layers with a stride, in order."""
    layers = (layer for layer in module.modules() if isinstance(layer, Layer))
    return [layer for layer in layers if layer.stride not in (1, (1, 1))]


def _fit(network: nn.Module, places: list[list[Layer]], baseline: Baseline) -> None:
    """Give a network of torchvision the images and strides of `baseline`; BN momentum 0.1."""
    for layers, stride in zip(places, baseline.place_strides, strict=True):
        for layer in layers:
            layer.stride = (stride, stride)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    _take_channels(network, baseline.in_channels)


def _take_channels(network: nn.Module, in_channels: int) -> None:
    """Draw the first convolution anew if images have other than its channels."""
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    if first.in_channels != in_channels:
        shape = (first.out_channels, in_channels, *first.kernel_size)
        first.weight = nn.Parameter(first.weight.new_empty(shape))
        first.in_channels = in_channels
        first.reset_parameters()
