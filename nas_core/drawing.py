"""Text drawing of an architecture for a terminal, one line per part.

    part      op             in          out         stride  parameters     MACs
    stage1.0  mbconv_k5_e3   16x112x112  32x56x56         2       3,760   18.2 M  ███████
    stage1.2  skip           32x56x56    32x56x56         1           0    0.0 M

Shapes are channels x height x width. The length of a bar is proportional to the part's
multiply-accumulates (MACs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas_core.architecture import Architecture, count_macs, count_params
from nas_core.space import Site

if TYPE_CHECKING:
    from torch import nn

BAR = 12
"""Length of the longest bar, in characters."""


@dataclass(frozen=True)
class Part:
    """The stem, one site, or the head of an architecture."""

    name: str
    op: str
    in_shape: str
    out_shape: str
    stride: int
    params: int
    macs: int
    """Multiply-accumulates for one image."""


def parts(architecture: Architecture) -> list[Part]:
    """Stem, sites and head, in order."""
    chosen = zip(architecture.space.sites, architecture.ops, strict=True)
    eps = architecture.space.bn_eps
    sites = [_site(site, op, eps) for site, op in chosen]
    return [_stem(architecture), *sites, _head(architecture)]


def drawing(architecture: Architecture) -> str:
    """Text with a title, a header row, one row per part and the totals; under 100 columns wide."""
    all_parts = parts(architecture)
    params = sum(part.params for part in all_parts)
    macs = sum(part.macs for part in all_parts)
    largest = max(part.macs for part in all_parts)
    cells = [
        ("part", "op", "in", "out", "stride", "parameters", "MACs", ""),
        *(_cells(part, largest) for part in all_parts),
        ("total", "", "", "", "", f"{params:,}", _millions(macs), ""),
    ]
    skips = architecture.ops.count("skip")
    title = f"{architecture.space.name}: {len(architecture.ops)} sites, {skips} of them skipped"
    return "\n".join([title, *_aligned(cells)])


def _stem(architecture: Architecture) -> Part:
    from nas_core.network import Stem

    space = architecture.space
    op = "conv_k3" if space.first_channels is None else "conv_k3, sepconv_k3"
    first = space.sites[0]
    shapes = (
        _shape(space.in_channels, space.resolution),
        _shape(first.in_channels, first.resolution),
    )
    counts = _counts(lambda: Stem(space), space.in_channels, space.resolution)
    return Part("stem", op, *shapes, space.stem_stride, *counts)


def _site(site: Site, op: str, bn_eps: float) -> Part:
    from nas_core.ops import build_op

    out = _shape(site.out_channels, site.out_resolution)
    shape = site.op_shape(bn_eps)
    counts = _counts(lambda: build_op(op, shape), site.in_channels, site.resolution)
    return Part(site.name, op, _shape(site.in_channels, site.resolution), out, site.stride, *counts)


def _head(architecture: Architecture) -> Part:
    from nas_core.network import Head

    space, last = architecture.space, architecture.space.sites[-1]
    counts = _counts(lambda: Head(space), last.out_channels, last.out_resolution)
    shape = _shape(last.out_channels, last.out_resolution)
    return Part("head", "conv_k1, linear", shape, str(space.classes), 1, *counts)


def _counts(build: Callable[[], nn.Module], in_channels: int, resolution: int) -> tuple[int, int]:
    return count_params(build), count_macs(build, in_channels, resolution)


def _shape(channels: int, resolution: int) -> str:
    return f"{channels}x{resolution}x{resolution}"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


def _cells(part: Part, largest_macs: int) -> tuple[str, ...]:
    bar = "█" * round(BAR * part.macs / largest_macs)
    numbers = str(part.stride), f"{part.params:,}", _millions(part.macs)
    return part.name, part.op, part.in_shape, part.out_shape, *numbers, bar


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines of text, each column as wide as its widest cell, numbers right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        padded = [
            cell.rjust(width) if 4 <= column <= 6 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines
