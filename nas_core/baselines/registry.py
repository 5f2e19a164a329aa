"""Registry of baselines: the networks that results are compared with, by name.

To add a baseline, write one function here and one line in `BASELINES`. The modules themselves are
in `fixed_networks.py` (chains of blocks) and `cells.py` (networks of cells). torch is imported only
to build a network or to count its parameters and operations.

Strides. Every published baseline downsamples its images by 32, in five steps of 2: the stem
(including the max-pool, further convolutions or reduction cells that belong to it), then its
strided blocks or reduction cells. That suits 224 pixels and is too much for small images. Below 128
pixels a baseline therefore gets the strides of the space that it is compared with: its first step
takes the space's stem stride; of the four others, in order, as many keep their stride of 2 as the
space has sites with a stride, and the rest get stride 1. It then works at the resolution of its
competitors, with as many parameters as published; `total_stride` gives the result.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from nas_core.architecture import FORMAT as ARCHITECTURE_FORMAT
from nas_core.architecture import Architecture, count_macs, count_params
from nas_core.baselines.genotypes import (
    AMOEBANET_A_MOBILE,
    DARTS_IMAGENET,
    NASNET_A_MOBILE,
    CellPlan,
)
from nas_core.space import SearchSpace, check_format

if TYPE_CHECKING:
    from torch import nn

FORMAT = "baseline/1"
PUBLISHED_STRIDES = (2, 2, 2, 2, 2)
"""Strides of every baseline at its five downsampling steps, as published."""
SMALL_IMAGES = 128
"""Number of pixels below which the published strides are not used."""

Builder = Callable[["Baseline", float], "nn.Module"]
"""Builds a baseline, given the dropout before its classifier."""


def mobilenet_v1(width: float = 1.0) -> Builder:
    """Builder of MobileNet (2017)."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines import fixed_networks

        return fixed_networks.mobilenet_v1(baseline, width, dropout)

    return build


def mobilenet_v2(width: float = 1.0) -> Builder:
    """Builder of MobileNetV2 (2018). Below width 1 its last convolution keeps 1280 channels."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines import fixed_networks

        return fixed_networks.mobilenet_v2(baseline, width, dropout)

    return build


def mnasnet(width: float = 1.0) -> Builder:
    """Builder of MnasNet-B1 (2019), without squeeze-and-excite."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines import fixed_networks

        return fixed_networks.mnasnet(baseline, width, dropout)

    return build


def shufflenet_v2(width: float) -> Builder:
    """Builder of ShuffleNetV2 (2018), in one of its four published widths."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines import fixed_networks

        return fixed_networks.shufflenet_v2(baseline, width, dropout)

    return build


def resnet(depth: int) -> Builder:
    """Builder of ResNet (2016)."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines import fixed_networks

        return fixed_networks.resnet(baseline, depth, dropout)

    return build


def cells(plan: CellPlan) -> Builder:
    """Builder of a network of cells."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines.cells import CellNetwork

        return CellNetwork(plan, baseline, dropout)

    return build


SCALED: dict[str, Callable[[float], Builder]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mnasnet": mnasnet,
}
"""Baselines that exist in any width, e.g. `mobilenet_v2_0.35`."""

BASELINES: dict[str, Builder] = {
    "mobilenet_v1": mobilenet_v1(),
    "mobilenet_v2": mobilenet_v2(),
    "mobilenet_v2_1.4": mobilenet_v2(1.4),
    "mnasnet": mnasnet(),
    "shufflenet_v2_0.5": shufflenet_v2(0.5),
    "shufflenet_v2_1.0": shufflenet_v2(1.0),
    "shufflenet_v2_1.5": shufflenet_v2(1.5),
    "shufflenet_v2_2.0": shufflenet_v2(2.0),
    "resnet18": resnet(18),
    "resnet34": resnet(34),
    "resnet50": resnet(50),
    "nasnet_a": cells(NASNET_A_MOBILE),
    "amoebanet_a": cells(AMOEBANET_A_MOBILE),
    "darts": cells(DARTS_IMAGENET),
}


def check_name(name: str) -> None:
    """Raise ValueError, listing the choices, unless `name` is a baseline."""
    _builder(name)


def _builder(name: str) -> Builder:
    family, _, width = name.rpartition("_")
    if name in BASELINES:
        return BASELINES[name]
    if family in SCALED and re.fullmatch(r"\d+(\.\d+)?", width) and float(width) > 0:
        return SCALED[family](float(width))
    raise ValueError(
        f"{name!r} is not a baseline; expected one of {', '.join(BASELINES)}, or a width greater "
        f"than 0 behind {', '.join(SCALED)}, e.g. mobilenet_v2_0.35"
    )


@dataclass(frozen=True)
class Baseline:
    """A network of the literature, for one image size and number of classes.

    Raises:
        ValueError: there is no such network, or a number is out of range.
    """

    name: str
    in_channels: int = 3
    resolution: int = 224
    classes: int = 1000
    strides: tuple[int, ...] | None = None
    """Strides at the five downsampling steps, see the head of this file; None: as published."""

    def __post_init__(self) -> None:
        check_name(self.name)
        for field in ("in_channels", "resolution", "classes"):
            value = getattr(self, field)
            if value < 1:
                raise ValueError(f"{field} of '{self.name}' is {value}; expected 1 or more")
        first, *later = self.place_strides
        if len(later) != 4 or first < 1 or not set(later) <= {1, 2}:
            raise ValueError(
                f"strides of '{self.name}' are {list(self.place_strides)}; expected five: 1 or "
                "more for the stem, then 1 or 2 each"
            )

    @property
    def place_strides(self) -> tuple[int, ...]:
        """Strides at the five downsampling steps; those of the published network by default."""
        return PUBLISHED_STRIDES if self.strides is None else self.strides

    @property
    def total_stride(self) -> int:
        """Factor by which height and width shrink between the image and the final pooling."""
        return prod(self.place_strides)

    def build(self, dropout: float = 0.0) -> nn.Module:
        """Build the network with random weights and `dropout` before its classifier."""
        return _builder(self.name)(self, dropout)

    def num_params(self) -> int:
        """Number of trainable parameters."""
        return count_params(self.build)

    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image."""
        return count_macs(self.build, self.in_channels, self.resolution)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        strides = None if self.strides is None else list(self.strides)
        return {"format": FORMAT, **asdict(self), "strides": strides}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Baseline:
        """Inverse of `to_dict`.

        Raises:
            ValueError: the format is another, or a field is missing or wrong.
        """
        check_format(values, FORMAT, "a baseline")
        fields = {name: value for name, value in values.items() if name != "format"}
        try:
            strides = fields.pop("strides")
            return cls(**fields, strides=None if strides is None else tuple(strides))
        except (AttributeError, TypeError, KeyError) as error:
            raise ValueError(f"this baseline cannot be read: {error}") from error

    def digest(self) -> str:
        """Twelve hexadecimal digits; equal baselines have equal digests."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def for_space(name: str, space: SearchSpace) -> Baseline:
    """The baseline for the images and classes of `space`; below 128 pixels with its strides too."""
    strides = strides_of(space) if space.resolution < SMALL_IMAGES else None
    return Baseline(name, space.in_channels, space.resolution, space.classes, strides)


def strides_of(space: SearchSpace) -> tuple[int, ...]:
    """Strides of a baseline for small images of this space; see the head of this file."""
    strided = sum(site.stride > 1 for site in space.sites)
    later = len(PUBLISHED_STRIDES) - 1
    return (space.stem_stride, *(2 if step < strided else 1 for step in range(later)))


def build(
    name: str,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    resolution: int | None = None,
    space: SearchSpace | None = None,
) -> nn.Module:
    """Build a baseline as a module, with random weights.

    Args:
        name: one of `BASELINES`, or one of `SCALED` with a width.
        classes: number of logits; default: that of `space`, else 1000.
        in_channels: channels of the images; default: those of `space`, else 3.
        resolution: pixels; default: that of `space`, else 224. Below 128 the baseline takes the
            strides of `space`, if one is given.
        space: the space whose networks the baseline is compared with.

    Raises:
        ValueError: there is no such baseline.
    """
    default = Baseline(name) if space is None else for_space(name, space)
    pixels = default.resolution if resolution is None else resolution
    return Baseline(
        name,
        default.in_channels if in_channels is None else in_channels,
        pixels,
        default.classes if classes is None else classes,
        None if space is None or pixels >= SMALL_IMAGES else strides_of(space),
    ).build()


def model_from_dict(values: dict[str, Any]) -> Architecture | Baseline:
    """Read an architecture or a baseline from its JSON values; the key "format" decides which.

    Raises:
        ValueError: the format is neither, or a field is missing or wrong.
    """
    form = values.get("format") if isinstance(values, dict) else type(values).__name__
    if form == FORMAT:
        return Baseline.from_dict(values)
    if form == ARCHITECTURE_FORMAT:
        return Architecture.from_dict(values)
    raise ValueError(
        f"not a network: format {form!r}; expected {ARCHITECTURE_FORMAT!r} or {FORMAT!r}"
    )
