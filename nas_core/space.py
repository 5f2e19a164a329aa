"""Search spaces: chains of sites, each with its candidate ops. No torch here.

Source: ProxylessNAS, section 4.1. The resolution of a site is that of its input, in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from nas_core.ops import check_op
from nas_core.shapes import OpShape, make_divisible

FORMAT = "space/1"


@dataclass(frozen=True)
class Site:
    """A position in the network where one op is chosen."""

    name: str
    in_channels: int
    out_channels: int
    stride: int
    resolution: int
    ops: tuple[str, ...]

    def check(self, in_channels: int) -> None:
        """Raise ValueError unless the site is valid for an input of `in_channels` channels."""
        if self.in_channels != in_channels:
            raise ValueError(
                f"'{self.name}' takes {self.in_channels} channels, but {in_channels} come to it"
            )
        for op in self.ops:
            check_op(op)
        if len(self.ops) < 2 or len(set(self.ops)) < len(self.ops):
            raise ValueError(
                f"'{self.name}' has the candidates {list(self.ops)}; expected two different or more"
            )
        if "skip" in self.ops and not self.op_shape(0.0).keeps_shape:
            raise ValueError(f"'{self.name}' changes the shape and cannot be skipped")

    @property
    def out_resolution(self) -> int:
        """Height and width of the output, pixels."""
        return _halved(self.resolution, self.stride)

    def op_shape(self, bn_eps: float) -> OpShape:
        """Shape from which an op is built at this site."""
        return OpShape(self.in_channels, self.out_channels, self.stride, bn_eps)


@dataclass(frozen=True)
class Stage:
    """Consecutive sites of equal width; the first one has the stride."""

    width: int
    blocks: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A chain of sites between a fixed stem and a fixed head, for one image size."""

    name: str
    in_channels: int
    resolution: int
    classes: int
    stem_channels: int
    stem_stride: int
    first_channels: int | None
    """Output channels of the fixed block (expansion 1) after the stem; None: no such block."""
    sites: tuple[Site, ...]
    head_channels: int
    reference_op: str = "mbconv_k3_e6"
    """Op of the reference network, at every site."""
    bn_eps: float = 1e-3

    def __post_init__(self) -> None:
        if not self.sites:
            raise ValueError(f"space '{self.name}' has no sites; expected at least one")
        names = [site.name for site in self.sites]
        if len(set(names)) < len(names):
            raise ValueError(f"space '{self.name}' has the sites {names}; expected each name once")
        channels = self.first_channels or self.stem_channels
        for site in self.sites:
            site.check(channels)
            channels = site.out_channels
            if self.reference_op not in site.ops:
                raise ValueError(
                    f"the reference op '{self.reference_op}' is not a candidate at '{site.name}'; "
                    f"expected one of {', '.join(site.ops)}"
                )

    def size(self) -> int:
        """Number of architectures."""
        return prod(len(site.ops) for site in self.sites)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SearchSpace:
        """Inverse of `to_dict`.

        Raises:
            ValueError: the format is another, or a field is missing.
        """
        check_format(values, FORMAT, "a search space")
        fields = {name: value for name, value in values.items() if name != "format"}
        try:
            sites = [Site(**{**site, "ops": tuple(site["ops"])}) for site in fields.pop("sites")]
            return cls(sites=tuple(sites), **fields)
        except (TypeError, KeyError) as error:
            raise ValueError(f"this search space cannot be read: {error}") from error


def check_format(values: Any, expected: str, what: str) -> None:
    """Raise ValueError unless `values` is a mapping whose "format" is `expected`."""
    if not isinstance(values, dict):
        raise ValueError(f"not {what}: {type(values).__name__}; expected a mapping")
    if values.get("format") != expected:
        raise ValueError(f"not {what} of format {expected!r}: {values.get('format')!r}")


def chain(
    name: str,
    *,
    stages: Sequence[Stage],
    ops: Sequence[str],
    in_channels: int,
    resolution: int,
    classes: int,
    stem_channels: int,
    stem_stride: int,
    head_channels: int,
    first_channels: int | None = None,
    reference_op: str = "mbconv_k3_e6",
    bn_eps: float = 1e-3,
) -> SearchSpace:
    """Build a space from its stages.

    'skip' in `ops` applies only to the sites that keep their shape.
    """
    sites: list[Site] = []
    channels = first_channels or stem_channels
    size = _halved(resolution, stem_stride)
    for number, stage in enumerate(stages, start=1):
        for block in range(stage.blocks):
            stride = stage.stride if block == 0 else 1
            keeps_shape = stride == 1 and channels == stage.width
            site_ops = tuple(op for op in ops if op != "skip" or keeps_shape)
            sites.append(
                Site(f"stage{number}.{block}", channels, stage.width, stride, size, site_ops)
            )
            channels, size = stage.width, sites[-1].out_resolution
    return SearchSpace(
        name=name,
        in_channels=in_channels,
        resolution=resolution,
        classes=classes,
        stem_channels=stem_channels,
        stem_stride=stem_stride,
        first_channels=first_channels,
        sites=tuple(sites),
        head_channels=head_channels,
        reference_op=reference_op,
        bn_eps=bn_eps,
    )


def _halved(size: int, stride: int) -> int:
    return (size + stride - 1) // stride


MOBILE_OPS = (
    "mbconv_k3_e3",
    "mbconv_k3_e6",
    "mbconv_k5_e3",
    "mbconv_k5_e6",
    "mbconv_k7_e3",
    "mbconv_k7_e6",
    "skip",
)


def proxyless_imagenet(
    *,
    classes: int = 1000,
    in_channels: int = 3,
    resolution: int = 224,
    ops: Sequence[str] = MOBILE_OPS,
    reference_op: str = "mbconv_k3_e6",
    width: float = 1.0,
    first_stage: int = 32,
    bn_eps: float = 1e-3,
) -> SearchSpace:
    """The published space: 21 sites, six of which change the shape and cannot be skipped.

    Args:
        classes: number of logits.
        in_channels: channels of the images.
        resolution: height and width of the images, pixels.
        ops: candidate ops; 'skip' applies only where the shape is kept.
        reference_op: op of the reference network.
        width: factor on every channel count, including stem, first block and head. Results are
            rounded by `make_divisible`; with a small `width`, stages 3 and 4 can become equally
            wide, so that the first site of stage 4 can be skipped too. The published networks for
            CPU and GPU have widths 1.12 and 1.35, with 24 channels in the first stage.
        first_stage: channels of the first stage before scaling: 32 as in Proxyless-Mobile and the
            Pixel 1 table, 24 in the defaults of the released search.
        bn_eps: epsilon of every BatchNorm.
    """
    widths, blocks = (first_stage, 40, 80, 96, 192, 320), (4, 4, 4, 4, 4, 1)
    stages = zip(_scaled(width, *widths), blocks, (2, 2, 2, 1, 2, 1), strict=True)
    stem, first, head = _scaled(width, 32, 16, 1280)
    name = "proxyless_imagenet" if first_stage == 32 else f"proxyless_imagenet_first{first_stage}"
    return chain(
        _named(name, width),
        stages=[Stage(*stage) for stage in stages],
        ops=ops,
        in_channels=in_channels,
        resolution=resolution,
        classes=classes,
        stem_channels=stem,
        stem_stride=2,
        first_channels=first,
        head_channels=head,
        reference_op=reference_op,
        bn_eps=bn_eps,
    )


def proxyless_small(
    *,
    classes: int = 10,
    in_channels: int = 1,
    resolution: int = 32,
    ops: Sequence[str] = MOBILE_OPS,
    reference_op: str = "mbconv_k3_e6",
    width: float = 1.0,
    bn_eps: float = 1e-3,
) -> SearchSpace:
    """Six sites for small images (32 pixels): a search takes minutes on two cores.

    `width` scales every channel count, as in `proxyless_imagenet`.
    """
    first, second, third = _scaled(width, 24, 32, 48)
    stem, head = _scaled(width, 16, 192)
    return chain(
        _named("proxyless_small", width),
        stages=[Stage(first, 2, 2), Stage(second, 2, 2), Stage(third, 2, 1)],
        ops=ops,
        in_channels=in_channels,
        resolution=resolution,
        classes=classes,
        stem_channels=stem,
        stem_stride=1,
        head_channels=head,
        reference_op=reference_op,
        bn_eps=bn_eps,
    )


def _scaled(width: float, *channels: int) -> list[int]:
    return [make_divisible(width * count) for count in channels]


def _named(name: str, width: float) -> str:
    return name if width == 1 else f"{name}_{width:g}"


SPACES: dict[str, Callable[..., SearchSpace]] = {
    "proxyless_imagenet": proxyless_imagenet,
    "proxyless_small": proxyless_small,
}
