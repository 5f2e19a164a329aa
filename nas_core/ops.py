"""Candidate ops, by name.

To add an op, write one function here and one line in `OPS`. The modules are in `blocks.py`, which
is imported only when an op is built, so that names can be checked without torch.
Source: ProxylessNAS, section 4.1 (MBConv with kernel 3, 5, 7 and expansion 3, 6; skip). Additions:
squeeze-and-excite and h-swish as in MobileNetV3, sections 5.2 and 5.3, and MnasNet's SepConv.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nas_core.shapes import OpShape

if TYPE_CHECKING:
    from torch import nn


OpBuilder = Callable[[OpShape], "nn.Module"]


def mbconv(kernel: int, expansion: int) -> OpBuilder:
    """Mobile inverted bottleneck with a depthwise convolution of size `kernel`."""

    def build(shape: OpShape) -> nn.Module:
        from nas_core.blocks import MBConv

        return MBConv(shape, kernel, expansion)

    return build


def mbconv_se(kernel: int, expansion: int) -> OpBuilder:
    """`mbconv` with squeeze-and-excite after the activation of its depthwise convolution."""

    def build(shape: OpShape) -> nn.Module:
        from nas_core.blocks import MBConv

        return MBConv(shape, kernel, expansion, has_squeeze=True)

    return build


def mbconv_hswish(kernel: int, expansion: int) -> OpBuilder:
    """`mbconv` with h-swish instead of both ReLU6 activations."""

    def build(shape: OpShape) -> nn.Module:
        from torch.nn import Hardswish

        from nas_core.blocks import MBConv

        return MBConv(shape, kernel, expansion, activation=Hardswish)

    return build


def sepconv(kernel: int) -> OpBuilder:
    """Separable convolution: depthwise, BN, ReLU6, then 1x1, BN; shortcut if the shape is kept.

    This is MnasNet's SepConv, an inverted bottleneck without expansion: its 1x1 convolution has no
    activation, unlike MobileNetV1's. The fixed first block of the published space is one with
    kernel 3.
    """
    return mbconv(kernel, 1)


def skip(shape: OpShape) -> nn.Module:
    """Identity: the output of the site is its input.

    Raises:
        ValueError: the site changes the shape, so it cannot be skipped.
    """
    from nas_core.blocks import Skip

    if not shape.keeps_shape:
        raise ValueError(
            f"'skip' cannot stand at a site from {shape.in_channels} to {shape.out_channels} "
            f"channels with stride {shape.stride}; only sites that keep the shape can be skipped"
        )
    return Skip()


OPS: dict[str, OpBuilder] = {
    "mbconv_k3_e3": mbconv(3, 3),
    "mbconv_k3_e6": mbconv(3, 6),
    "mbconv_k5_e3": mbconv(5, 3),
    "mbconv_k5_e6": mbconv(5, 6),
    "mbconv_k7_e3": mbconv(7, 3),
    "mbconv_k7_e6": mbconv(7, 6),
    "mbconv_k3_e3_se": mbconv_se(3, 3),
    "mbconv_k3_e6_se": mbconv_se(3, 6),
    "mbconv_k5_e3_se": mbconv_se(5, 3),
    "mbconv_k5_e6_se": mbconv_se(5, 6),
    "mbconv_k7_e3_se": mbconv_se(7, 3),
    "mbconv_k7_e6_se": mbconv_se(7, 6),
    "mbconv_k3_e3_hswish": mbconv_hswish(3, 3),
    "mbconv_k3_e6_hswish": mbconv_hswish(3, 6),
    "mbconv_k5_e3_hswish": mbconv_hswish(5, 3),
    "mbconv_k5_e6_hswish": mbconv_hswish(5, 6),
    "mbconv_k7_e3_hswish": mbconv_hswish(7, 3),
    "mbconv_k7_e6_hswish": mbconv_hswish(7, 6),
    "sepconv_k3": sepconv(3),
    "sepconv_k5": sepconv(5),
    "sepconv_k7": sepconv(7),
    "skip": skip,
}


def check_op(name: str) -> None:
    """Raise ValueError, listing the choices, unless `name` is a candidate op."""
    if name not in OPS:
        raise ValueError(f"{name!r} is not an op; expected one of {', '.join(OPS)}")


def build_op(name: str, shape: OpShape) -> nn.Module:
    """Build the module of one op.

    Raises:
        ValueError: there is no such op, or it does not fit this shape.
    """
    check_op(name)
    return OPS[name](shape)
