"""Network of an architecture: stem, one op per site, head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nas_core.blocks import MBConv, Pool, ReLU6, conv_bn
from nas_core.ops import build_op
from nas_core.shapes import OpShape

if TYPE_CHECKING:
    from nas_core.space import SearchSpace


class Stem(nn.Sequential):
    """Layers before the first site: 3x3 convolution; in the published space also a fixed block."""

    def __init__(self, space: SearchSpace) -> None:
        eps = space.bn_eps
        layers = [
            *conv_bn(space.in_channels, space.stem_channels, 3, space.stem_stride, eps),
            ReLU6(),
        ]
        if space.first_channels is not None:
            shape = OpShape(space.stem_channels, space.first_channels, 1, eps)
            layers.append(MBConv(shape, kernel=3, expansion=1))
        super().__init__(*layers)


class Head(nn.Sequential):
    """Layers after the last site: 1x1 convolution, pooling, dropout, classifier."""

    def __init__(self, space: SearchSpace, dropout: float = 0.0) -> None:
        super().__init__(
            *conv_bn(space.sites[-1].out_channels, space.head_channels, 1, 1, space.bn_eps),
            ReLU6(),
            Pool(),
            nn.Dropout(dropout),
            nn.Linear(space.head_channels, space.classes),
        )


class Network(nn.Module):
    """The module of an architecture: one op per site, without the skips."""

    def __init__(self, space: SearchSpace, ops: Sequence[str], dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = Stem(space)
        chosen = zip(space.sites, ops, strict=True)
        self.blocks = nn.Sequential(
            *(build_op(op, site.op_shape(space.bn_eps)) for site, op in chosen if op != "skip")
        )
        self.head = Head(space, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, classes)."""
        logits: Tensor = self.head(self.blocks(self.stem(images)))
        return logits
