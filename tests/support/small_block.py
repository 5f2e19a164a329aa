"""A small block and an image for it, used by the tests of all runtimes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def small_block() -> nn.Module:
    """Convolution, batch norm and activation, from 3 to 16 channels."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(16), nn.ReLU6())


def small_image() -> Tensor:
    """One image of noise, (1, 3, 16, 16)."""
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
