"""A small block, an image for it, and a small space, used by the tests of all runtimes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas_core.space import SearchSpace, Stage, chain


def small_block() -> nn.Module:
    """Convolution, batch norm and activation, from 3 to 16 channels."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(16), nn.ReLU6())


def small_image() -> Tensor:
    """One image of noise, (1, 3, 16, 16)."""
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def small_space() -> SearchSpace:
    """Three sites with all kinds of blocks, for grey images of 16x16."""
    return chain(
        "small",
        stages=[Stage(8, 1, 1), Stage(16, 2, 2)],
        ops=("mbconv_k3_e6", "mbconv_k5_e3"),
        in_channels=1,
        resolution=16,
        classes=5,
        stem_channels=8,
        stem_stride=2,
        head_channels=32,
        reference_op="mbconv_k3_e6",
    )
