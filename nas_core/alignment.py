"""How the candidate ops of a supernet begin: all ops of a site as one function.

Ops that are drawn independently speak different languages: what follows a site that cannot be
skipped would have to understand every combination of them, and learns next to nothing for long
(nine sites, 40 classes, 800 steps: top-1 5 %, and 56 % if ops begin aligned). So inverted
bottlenecks begin with the channels and the kernel that all of them have, from one draw: further
channels reach the output through weights of 0 at first, and the rim of a larger kernel is 0. Where
a site can be skipped its ops begin as the skip, by a BatchNorm of scale 0 before the shortcut.
Nothing is shared afterwards: every op trains weights of its own.

Sources: function-preserving widening, Chen et al., "Net2Net" (2016); the scale of 0, Goyal et al.,
"Accurate, Large Minibatch SGD" (2017), section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from nas_core.blocks import MBConv


@torch.no_grad()
def align(ops: Iterable[nn.Module]) -> None:
    """Change the weights of the candidate ops of a site; those that are no bottleneck stay.

    With and without an expand convolution they are aligned apart: no weights make these equal.
    """
    bottlenecks = [op for op in ops if isinstance(op, MBConv)]
    for length in {len(_convolutions(op)) for op in bottlenecks}:
        alike = [_convolutions(op) for op in bottlenecks if len(_convolutions(op)) == length]
        for layers in zip(*alike, strict=True):
            _begin_equal([layer.weight for layer in layers])
    for op in bottlenecks:
        if op.has_shortcut:
            _last_norm(op).weight.zero_()


def _convolutions(op: MBConv) -> list[nn.Conv2d]:
    """From its input to its output; those of squeeze-and-excite only scale."""
    return [layer for layer in op.layers if isinstance(layer, nn.Conv2d)]


def _last_norm(op: MBConv) -> nn.BatchNorm2d:
    norm = op.layers[-1]
    assert isinstance(norm, nn.BatchNorm2d), "a bottleneck ends with a BatchNorm"
    return norm


def _begin_equal(weights: Sequence[Tensor]) -> None:
    """Give weights (out, in, k, k) of several sizes one function on the channels that all have."""
    outputs, inputs, kernel = (min(one.shape[i] for one in weights) for i in (0, 1, 3))
    common = _middle(weights[0], kernel)[:outputs, :inputs].clone()
    for one in weights:
        one[:outputs] = 0.0
        _middle(one, kernel)[:outputs, :inputs] = common


def _middle(weight: Tensor, kernel: int) -> Tensor:
    """A view of the middle of kernels, which are of odd size."""
    rim = (weight.shape[-1] - kernel) // 2
    return weight[:, :, rim : rim + kernel, rim : rim + kernel]
