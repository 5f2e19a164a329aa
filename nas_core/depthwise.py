"""Depthwise convolutions that train fast on a CPU, also with kernels wider than 3.

oneDNN has a fast weight gradient of depthwise convolutions only for kernels up to width 3. For
wider ones it uses that of dense convolutions, in blocks of 16 x 16 channels of which only the
diagonal is needed: 5.3 ms where the forward pass takes 0.4 (AVX-512, 32 x 144 x 12 x 12, kernel 5).
The gradient is therefore computed for three columns of the kernel at a time: the gradient of
columns i to i + 2 is that of a kernel of width 3 on the input shifted by i.
Shapes: N = batch, C = channels, H, W = height and width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

COLUMNS = 3
"""Widest kernel for which oneDNN has a fast weight gradient of depthwise convolutions."""
VALUES_AT_ONCE = 2**19
"""Input values per slice of the batch, few enough for the shifted copy to stay in the cache."""


class Depthwise(nn.Conv2d):
    """Depthwise convolution without bias, padded to keep the size at stride 1."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(
            channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        if COLUMNS < self.kernel_size[0] <= 2 * x.shape[3] + 1 and _is_slow(x, self.weight):
            y: Tensor = _DepthwiseConvolution.apply(x, self.weight, self.stride[0])
            return y
        return super().forward(x)


def _is_slow(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN would compute the weight gradient of a wide kernel, in float32."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and torch.is_grad_enabled()
        and weight.requires_grad
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


class _DepthwiseConvolution(torch.autograd.Function):
    """Depthwise convolution with its own weight gradient; see the head of this file."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, _ = ctx.needs_input_grad
        return (
            _input_grad(grad, x, weight, ctx.stride) if of_x else None,
            _weight_grad(grad, x, weight, ctx.stride) if of_weight else None,
            None,
        )


def _input_grad(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Input gradient, as in torch's own backward pass.

    `torch.nn.grad.conv2d_input` loses the memory format and takes up to eight times as long.
    """
    padding = weight.shape[-1] // 2
    input_grad: Tensor = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        bias_sizes=None,
        stride=[stride, stride],
        padding=[padding, padding],
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=weight.shape[0],
        output_mask=[True, False, False],
    )[0]
    return input_grad


def _weight_grad(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Weight gradient, summed over slices of the batch.

    The result has the strides of the weight, which DistributedDataParallel requires.
    """
    images = max(1, VALUES_AT_ONCE * len(x) // max(1, x.numel()))
    slices = zip(torch.split(grad, images), torch.split(x, images), strict=True)
    grads = [_grad_by_columns(grad, x, weight.shape, stride) for grad, x in slices]
    return torch.empty_like(weight).copy_(torch.stack(grads).sum(0))


def _grad_by_columns(grad: Tensor, x: Tensor, shape: torch.Size, stride: int) -> Tensor:
    channels, kernel = shape[0], shape[-1]
    height, width = ((size - 1) * stride for size in grad.shape[2:])
    above = kernel // 2
    below = height + kernel - above - x.shape[2]
    narrow, columns = (channels, 1, kernel, COLUMNS), []
    for first in range(0, kernel, COLUMNS):
        left = above - first
        shifted = F.pad(x, (left, width + COLUMNS - left - x.shape[3], above, below))
        column_grad = conv2d_weight(shifted, narrow, grad, stride, groups=channels)  # type: ignore[no-untyped-call]
        columns.append(column_grad)
    return torch.cat(columns, 3)[..., :kernel]
