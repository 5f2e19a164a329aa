"""Adjacent ops are distinguishable, in colour and in greyscale."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise

import pytest
from matplotlib.colors import to_rgb

from nas_core.ops import OPS
from orchestration.reports.figures.colours import SHADES, SKIP_COLOUR, op_style


def lightness(colour: str) -> float:
    """L* of CIELAB, 0 to 100."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return float(116 * luminance ** (1 / 3) - 16)


def grey(colour: str) -> float:
    """Luma of a colour in greyscale (Rec. 601), 0 to 100."""
    red, green, blue = to_rgb(colour)
    return 29.9 * red + 58.7 * green + 11.4 * blue


@pytest.mark.parametrize("measure", [lightness, grey])
def test_no_two_shades_are_alike_in_grey(measure: Callable[[str], float]) -> None:
    result = [measure(colour) for colour in (SKIP_COLOUR, *SHADES.values())]
    assert result == sorted(result, reverse=True)
    assert min(a - b for a, b in pairwise(result)) > 6


def test_every_op_has_a_look_of_its_own() -> None:
    looks = [(op_style(op)["facecolor"], op_style(op).get("hatch", "")) for op in OPS]
    assert not [pair for pair in combinations(looks, 2) if pair[0] == pair[1]]


def test_hatches_are_seen_on_their_shade() -> None:
    for op in OPS:
        style = op_style(op)
        assert abs(lightness(style["facecolor"]) - lightness(style["edgecolor"])) > 30


def test_an_op_without_a_kernel_has_a_look_too() -> None:
    assert op_style("pool")["hatch"] == "xxxx"
