"""Depthwise convolutions compared with torch's own, in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas_core import depthwise
from nas_core.depthwise import Depthwise


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 12])
def test_a_depthwise_convolution_has_the_gradients_of_torchs(
    kernel: int, stride: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of 13 images, five at a time.
    monkeypatch.setattr(depthwise, "VALUES_AT_ONCE", 5 * 6 * size * size)
    x = torch.randn(13, 6, size, size + 1).to(memory_format=torch.channels_last)
    ours = Depthwise(6, kernel, stride)
    theirs = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    result = _output_and_slopes(ours, x)
    for item, other in zip(result, _output_and_slopes(theirs, x.double()), strict=True):
        torch.testing.assert_close(item.double(), other, rtol=1e-4, atol=1e-4)


def _output_and_slopes(convolution: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = convolution(x)
    into, own = torch.autograd.grad((y * y.detach().cos()).sum(), (x, convolution.weight))
    return y, into, own


def test_gradients_are_ordered_as_the_weight() -> None:
    wide = Depthwise(3, 5, 1).to(memory_format=torch.channels_last)
    (grad,) = torch.autograd.grad(wide(torch.randn(2, 3, 5, 5)).sum(), wide.weight)
    assert grad.stride() == wide.weight.stride() == (25, 1, 5, 1)


def test_the_gradient_of_wide_depthwise_kernels_is_computed_in_columns() -> None:
    x = torch.randn(2, 3, 5, 5)
    taken = {
        kernel: type(Depthwise(3, kernel, 1)(x).grad_fn).__name__ == "_DepthwiseConvolutionBackward"
        for kernel in (3, 5, 7)
    }
    assert taken == {3: False, 5: True, 7: True}


def test_a_wide_depthwise_convolution_is_left_to_torch_where_oneDNN_is_not_asked() -> None:
    wide, x = Depthwise(3, 5, 1), torch.randn(2, 3, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert wide(x).grad_fn.name() == "ConvolutionBackward0"
    wide.requires_grad_(False)  # as in an update of the architecture
    assert wide(x).grad_fn.name() == "ConvolutionBackward0"
