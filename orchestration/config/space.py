"""The `space:` section of a job file: a built-in space by name, or a chain of stages.

    space: {name: proxyless_imagenet, width: 1.12, first_stage: 24}

    space:
      stem: {channels: 16, stride: 1}
      stages:
        - {width: 24, blocks: 2, stride: 2}
        - {width: 48, blocks: 3, stride: 2}
      kernels: [3, 5]
      expansions: [3, 6]
      head: 192

Checks raise ValueError with the name of the setting; `loading.py` prefixes file and section.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from nas_core.ops import OPS
from nas_core.settings import Section, require
from nas_core.space import MOBILE_OPS, SPACES, SearchSpace, Stage, chain

CHAIN_KEYS = ("stem", "stages", "kernels", "expansions", "skip", "head")
CHAIN_NEEDS = "stem, stages, head, and kernels with expansions (or ops)"
EXAMPLES = {
    "stem": "stem: {channels: 16, stride: 2}",
    "stages": "stages: [{width: 24, blocks: 2, stride: 2}]",
    "head": "head: 192",
    "kernels": "kernels: [3, 5, 7]",
    "expansions": "expansions: [3, 6]",
}


@dataclass(frozen=True, kw_only=True)
class StemSettings(Section):
    """Layers before the first site of a chain. The `stem:` of a chain."""

    channels: int
    """Output channels of the first 3x3 convolution."""

    stride: int = 2
    """Stride of that convolution: 1 or 2."""

    first_channels: int | None = None
    """Output channels of a fixed block (expansion 1, kernel 3) after the convolution. Left out: no
    such block."""

    def __post_init__(self) -> None:
        _check_channels("channels", self.channels)
        _check_stride(self.stride)
        if self.first_channels is not None:
            _check_channels("first_channels", self.first_channels)


@dataclass(frozen=True, kw_only=True)
class StageSettings(Section):
    """Consecutive sites of one width. An entry of the `stages:` of a chain."""

    width: int
    """Output channels of every site."""

    blocks: int
    """Number of sites."""

    stride: int = 1
    """Stride of the first site: 1 or 2."""

    def __post_init__(self) -> None:
        _check_channels("width", self.width)
        require(1 <= self.blocks <= 100, "blocks", self.blocks, "1 to 100 sites, e.g. 4")
        _check_stride(self.stride)


def _check_channels(name: str, channels: int) -> None:
    require(1 <= channels <= 10_000, name, channels, "1 to 10000 channels, e.g. 24")


def _check_stride(stride: int) -> None:
    require(stride in (1, 2), "stride", stride, "1, or 2 to halve height and width")


@dataclass(frozen=True, kw_only=True)
class SpaceSettings(Section):
    """Search space. The `space:` section of a job file."""

    name: str | None = None
    """`proxyless_small` (6 sites, the default) or `proxyless_imagenet` (21 sites). Chain: any other
    name; left out: `chain`."""

    width: float = 1.0
    """Factor of all channel counts of a built-in space; results are rounded to multiples of 8."""

    first_stage: Literal[24, 32] | None = None
    """Width of the first stage of `proxyless_imagenet`. Left out: 32."""

    stem: StemSettings | None = None
    """Chain: the layers before the first site."""

    stages: tuple[StageSettings, ...] | None = None
    """Chain: groups of sites, in order."""

    kernels: tuple[int, ...] | None = None
    """Chain: kernel sizes of the MBConv candidates, each combined with each expansion."""

    expansions: tuple[int, ...] | None = None
    """Chain: expansion ratios of the MBConv candidates."""

    skip: bool | None = None
    """Chain: whether sites that keep their shape can be skipped. Left out: true."""

    head: int | None = None
    """Chain: output channels of the 1x1 convolution before pooling and classifier."""

    ops: tuple[str, ...] | None = None
    """Candidate ops by name. Left out: those of the published space. Chain: replaces `kernels`,
    `expansions` and `skip`."""

    reference_op: str | None = None
    """Op of the reference network at every site. Left out: `mbconv_k3_e6` if it is a candidate,
    else the first candidate other than `skip`."""

    resolution: int | None = None
    """Consistency check: must equal `data.resolution`."""

    classes: int | None = None
    """Consistency check: must equal the number of classes in the data."""

    bn_eps: float = 1e-3
    """Epsilon of every BatchNorm."""

    def __post_init__(self) -> None:
        if self.is_chain:
            _check_chain(self)
        else:
            _check_known(self)
        for i, op in enumerate(self.ops or ()):
            require(op in OPS, f"ops[{i}]", op, f"one of {', '.join(OPS)}")
        _check_candidates(self)
        choices = [op for op in self.candidates if op != "skip"]
        is_choice = self.reference_op is None or self.reference_op in choices
        require(is_choice, "reference_op", self.reference_op, f"one of {', '.join(choices)}")
        require(self.bn_eps > 0, "bn_eps", self.bn_eps, "a number greater than 0, e.g. 1e-3")

    @property
    def is_chain(self) -> bool:
        """Whether the section describes a chain, not a built-in space."""
        return any(getattr(self, key) is not None for key in CHAIN_KEYS)

    @property
    def candidates(self) -> tuple[str, ...]:
        """Candidate ops. 'skip' is offered only at sites that keep their shape."""
        if self.ops is not None:
            return self.ops
        if not self.is_chain:
            return MOBILE_OPS
        mbconvs = _mbconvs(self.kernels or (), self.expansions or ())
        return mbconvs if self.skip is False else (*mbconvs, "skip")

    def build(self, classes: int, in_channels: int, resolution: int) -> SearchSpace:
        """The search space for images of this shape.

        Raises:
            ValueError: `classes` or `resolution` of the section differ from those of the data.
        """
        self._check_images(classes, resolution)
        build = self._chain if self.is_chain else self._known
        return build(
            classes=classes,
            in_channels=in_channels,
            resolution=resolution,
            ops=self.candidates,
            reference_op=self._reference(),
            bn_eps=self.bn_eps,
        )

    def _check_images(self, classes: int, resolution: int) -> None:
        if self.resolution not in (None, resolution):
            raise ValueError(
                f"resolution is {self.resolution}, but data.resolution is {resolution}; "
                f"set data.resolution to {self.resolution}, or leave this one out"
            )
        if self.classes not in (None, classes):
            raise ValueError(
                f"classes is {self.classes}, but the data has {classes}; "
                "leave it out, since the data says it"
            )

    def _reference(self) -> str:
        choices = [op for op in self.candidates if op != "skip"]
        usual = "mbconv_k3_e6" if "mbconv_k3_e6" in choices else choices[0]
        return self.reference_op or usual

    def _known(self, **settings: Any) -> SearchSpace:
        first_stage = {} if self.first_stage is None else {"first_stage": self.first_stage}
        name = self.name or "proxyless_small"
        return SPACES[name](width=self.width, **first_stage, **settings)

    def _chain(self, **settings: Any) -> SearchSpace:
        assert self.stem is not None, "checked at construction"
        assert self.stages is not None, "checked at construction"
        assert self.head is not None, "checked at construction"
        return chain(
            self.name or "chain",
            stages=[Stage(stage.width, stage.blocks, stage.stride) for stage in self.stages],
            stem_channels=self.stem.channels,
            stem_stride=self.stem.stride,
            first_channels=self.stem.first_channels,
            head_channels=self.head,
            **settings,
        )


def _mbconvs(kernels: Sequence[int], expansions: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"mbconv_k{k}_e{e}" for k, e in product(kernels, expansions))


def _check_known(space: SpaceSettings) -> None:
    known = f"{', '.join(SPACES)}, or a chain of your own with {CHAIN_NEEDS}"
    require(space.name is None or space.name in SPACES, "name", space.name, f"one of {known}")
    require(0 < space.width <= 10, "width", space.width, "a factor above 0 and up to 10, e.g. 1.12")
    has_first_stage = space.first_stage is None or space.name == "proxyless_imagenet"
    require(has_first_stage, "first_stage", space.first_stage, "nothing but for proxyless_imagenet")


def _check_chain(space: SpaceSettings) -> None:
    present = [key for key in CHAIN_KEYS if getattr(space, key) is not None]
    require(
        space.name not in SPACES,
        "name",
        space.name,
        f"a name of your own beside {', '.join(present)}: a known space has its own chain, "
        "so leave out one or the other",
    )
    _check_complete(space, present[0])
    for key in ("stages", "kernels", "expansions"):
        require(getattr(space, key) != (), key, [], f"at least one, e.g. {EXAMPLES[key]}")
    assert space.head is not None, "checked just now"
    _check_channels("head", space.head)
    require(space.width == 1, "width", space.width, "1: a chain spells out its channels")
    own = "nothing beside a chain, whose stages say it"
    require(space.first_stage is None, "first_stage", space.first_stage, own)
    is_name = space.name is None or bool(space.name.strip())
    require(is_name, "name", space.name, "a name, e.g. my_chain")
    for key, name in (("kernels", r"mbconv_k(\d+)_e\d+"), ("expansions", r"mbconv_k\d+_e(\d+)")):
        _check_numbers(key, getattr(space, key) or (), name)


def _check_complete(space: SpaceSettings, present: str) -> None:
    """Raise ValueError if a chain lacks a required setting.

    Args:
        space: the chain.
        present: a setting that it has, for the message.
    """
    candidates = ("kernels", "expansions") if space.ops is None else ()
    for key in ("stem", "stages", "head", *candidates):
        if getattr(space, key) is None:
            raise ValueError(
                f"{key} is missing; a space with {present!r} is a chain, which needs "
                f"{CHAIN_NEEDS}, e.g. {EXAMPLES[key]}"
            )
    if space.ops is not None:
        for key in ("kernels", "expansions", "skip"):
            value = getattr(space, key)
            require(value is None, key, value, "nothing beside ops, which lists all candidates")


def _check_numbers(key: str, numbers: Sequence[int], pattern: str) -> None:
    """Raise ValueError unless the name of some op has each of the numbers, without repeats."""
    names = (re.fullmatch(pattern, op) for op in OPS)
    known = sorted({int(name[1]) for name in names if name})
    for i, number in enumerate(numbers):
        rule = f"one of {', '.join(map(str, known))}"
        require(number in known, f"{key}[{i}]", number, rule)
    require(len(set(numbers)) == len(numbers), key, list(numbers), "each number once")


def _check_candidates(space: SpaceSettings) -> None:
    candidates = list(space.candidates)
    name = "ops" if space.ops is not None else "kernels and expansions"
    require(len(set(candidates)) == len(candidates), name, candidates, "each op once")
    kinds = [op for op in candidates if op != "skip"]
    require(len(kinds) >= 2, name, candidates, "at least two ops beside 'skip'")
