"""The networks that results are compared with, by name. torch is imported only to build or count.

A new baseline is one function here and one line in `BASELINES`. Modules live in `fixed_networks.py`
(chains of blocks) and `cells.py` (networks of cells).

Strides. Every baseline halves its images at five places, 32 times in total: the stem (with it, the
max-pool behind it or the further convolutions or reduction cells that belong to it), then its
strided blocks or reduction cells. That suits 224 pixels and ruins small images. Below 128 pixels a
baseline is therefore built with the strides of the space that it is compared with: its first place
takes the space's stem stride; of the further places, in order, as many keep their stride of 2 as
the space has sites with a stride, and the rest get stride 1. So it works at the resolution of its
competitors, with as many parameters as published; `total_stride` says at which.
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
"""Of every baseline, at its places."""
SMALL_IMAGES = 128
"""Images of fewer pixels are no images for the published strides."""

Builder = Callable[["Baseline", float], "nn.Module"]
"""Builds a baseline with a dropout before its classifier."""


def mobilenet_v1(width: float = 1.0) -> Builder:
    """MobileNet (2017)."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines import fixed_networks

        return fixed_networks.mobilenet_v1(baseline, width, dropout)

    return build


def mobilenet_v2(width: float = 1.0) -> Builder:
    """MobileNetV2 (2018). Below width 1 its last convolution keeps 1280 channels."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines import fixed_networks

        return fixed_networks.mobilenet_v2(baseline, width, dropout)

    return build


def mnasnet(width: float = 1.0) -> Builder:
    """MnasNet-B1 (2019), without squeeze-and-excite."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines import fixed_networks

        return fixed_networks.mnasnet(baseline, width, dropout)

    return build


def shufflenet_v2(width: float) -> Builder:
    """ShuffleNetV2 (2018), in one of its four published widths."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines import fixed_networks

        return fixed_networks.shufflenet_v2(baseline, width, dropout)

    return build


def resnet(depth: int) -> Builder:
    """ResNet (2016)."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines import fixed_networks

        return fixed_networks.resnet(baseline, depth, dropout)

    return build


def cells(plan: CellPlan) -> Builder:
    """A network of cells."""

    def build(baseline: Baseline, dropout: float) -> nn.Module:
        from nas_core.baselines.cells import CellNetwork

        return CellNetwork(plan, baseline, dropout)

    return build


SCALED: dict[str, Callable[[float], Builder]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mnasnet": mnasnet,
}
"""Networks of any width: `mobilenet_v2_0.35`."""

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
    """A network of the literature for images of one size.

    Raises:
        ValueError: no such network, or a number that cannot be.
    """

    name: str
    in_channels: int = 3
    resolution: int = 224
    classes: int = 1000
    strides: tuple[int, ...] | None = None
    """At its five places, see the head of this file; None: as published."""

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
        """Strides at its places, those of the published network included."""
        return PUBLISHED_STRIDES if self.strides is None else self.strides

    @property
    def total_stride(self) -> int:
        """Pixels of the image, in one direction, for each pixel in front of the pooling."""
        return prod(self.place_strides)

    def build(self, dropout: float = 0.0) -> nn.Module:
        """The network, with random weights and `dropout` before its classifier."""
        return _builder(self.name)(self, dropout)

    def num_params(self) -> int:
        """Trainable parameters."""
        return count_params(self.build)

    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image."""
        return count_macs(self.build, self.in_channels, self.resolution)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        strides = None if self.strides is None else list(self.strides)
        return {"format": FORMAT, **asdict(self), "strides": strides}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Baseline:
        """The inverse of `to_dict`.

        Raises:
            ValueError: another format, or a field is missing or wrong.
        """
        check_format(values, FORMAT, "a baseline")
        fields = {name: value for name, value in values.items() if name != "format"}
        try:
            strides = fields.pop("strides")
            return cls(**fields, strides=None if strides is None else tuple(strides))
        except (AttributeError, TypeError, KeyError) as error:
            raise ValueError(f"this baseline cannot be read: {error}") from error

    def digest(self) -> str:
        """Twelve hexadecimal digits that are equal for equal baselines."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def for_space(name: str, space: SearchSpace) -> Baseline:
    """The baseline for the images and classes of `space`; below 128 pixels with its strides."""
    strides = strides_of(space) if space.resolution < SMALL_IMAGES else None
    return Baseline(name, space.in_channels, space.resolution, space.classes, strides)


def strides_of(space: SearchSpace) -> tuple[int, ...]:
    """What a baseline takes from a space for small images; the rule is in the head of this file."""
    left = sum(site.stride > 1 for site in space.sites)
    later = len(PUBLISHED_STRIDES) - 1
    return (space.stem_stride, *(2 if place < left else 1 for place in range(later)))


def build(
    name: str,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    resolution: int | None = None,
    space: SearchSpace | None = None,
) -> nn.Module:
    """A baseline as a module, with random weights.

    Args:
        name: one of `BASELINES`, or one of `SCALED` with a width.
        classes: logits; left out: as `space`, else 1000.
        in_channels: channels of the images; left out: as `space`, else 3.
        resolution: pixels; left out: as `space`, else 224. Below 128 it takes the strides of
            `space`, where one is given.
        space: what it is compared with.

    Raises:
        ValueError: no such baseline.
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
    """An architecture or a baseline from its JSON, by the "format" that it says.

    Raises:
        ValueError: neither, or a field is missing or wrong.
    """
    form = values.get("format") if isinstance(values, dict) else type(values).__name__
    if form == FORMAT:
        return Baseline.from_dict(values)
    if form == ARCHITECTURE_FORMAT:
        return Architecture.from_dict(values)
    raise ValueError(
        f"not a network: format {form!r}; expected {ARCHITECTURE_FORMAT!r} or {FORMAT!r}"
    )
