"""The three specialized networks that were published, as data. No torch here.

Source: the released networks (mit-han-lab/proxylessnas, MIT licence): ImageNet, 224 pixels,
BatchNorm eps 1e-3. Proxyless-Mobile belongs to the space with 32 channels in the first stage,
Proxyless-CPU and Proxyless-GPU to that with 24 channels, at widths 1.12 and 1.35.
"""

from __future__ import annotations

from dataclasses import dataclass

from nas_core.architecture import Architecture
from nas_core.space import proxyless_imagenet


@dataclass(frozen=True)
class Published:
    """A network of the published space: its width, and its ops stage by stage."""

    width: float
    first_stage: int
    stages: tuple[str, ...]
    """One line per stage, one name per site: "k5_e3" is `mbconv_k5_e3`, "skip" is `skip`."""

    def ops(self) -> tuple[str, ...]:
        """Name of the op at every site."""
        names = " ".join(self.stages).split()
        return tuple(name if name == "skip" else f"mbconv_{name}" for name in names)


PUBLISHED = {
    "proxyless_cpu": Published(
        width=1.12,
        first_stage=24,
        stages=(
            "k3_e6 k3_e3 k3_e3 k3_e3",
            "k3_e6 k3_e3 k3_e3 k5_e3",
            "k3_e6 skip  skip  k3_e3",
            "k5_e6 k3_e3 k3_e3 k3_e3",
            "k5_e6 k5_e3 k5_e3 k3_e3",
            "k5_e6",
        ),
    ),
    "proxyless_gpu": Published(
        width=1.35,
        first_stage=24,
        stages=(
            "k5_e3 skip  skip  skip ",
            "k7_e3 skip  skip  k3_e3",
            "k7_e6 skip  skip  k5_e3",
            "k5_e6 skip  k3_e3 k5_e3",
            "k7_e6 k7_e6 k7_e6 k5_e6",
            "k7_e6",
        ),
    ),
    "proxyless_mobile": Published(
        width=1.0,
        first_stage=32,
        stages=(
            "k5_e3 k3_e3 skip  skip ",
            "k7_e3 k3_e3 k5_e3 k5_e3",
            "k7_e6 k5_e3 k5_e3 k5_e3",
            "k5_e6 k5_e3 k5_e3 k5_e3",
            "k7_e6 k7_e6 k7_e3 k7_e3",
            "k7_e6",
        ),
    ),
}

NAMES = tuple(PUBLISHED)


def architecture(
    name: str, *, classes: int = 1000, in_channels: int = 3, resolution: int = 224
) -> Architecture:
    """A published network, optionally for other images and classes than ImageNet's.

    Args:
        name: one of `NAMES`.
        classes: number of logits.
        in_channels: channels of the images.
        resolution: height and width of the images, pixels. The strides stay as published (32 in
            total).

    Raises:
        ValueError: there is no such network.
    """
    if name not in PUBLISHED:
        raise ValueError(f"{name!r} is not a published network; expected one of {', '.join(NAMES)}")
    published = PUBLISHED[name]
    space = proxyless_imagenet(
        classes=classes,
        in_channels=in_channels,
        resolution=resolution,
        width=published.width,
        first_stage=published.first_stage,
    )
    return Architecture(space, published.ops())
