"""Colours of ops as areas beside each other, the same in every picture.

Hue = kernel, lightness = expansion, hatch = what else tells an op from others. No two lightnesses
are near each other, so that ops are told apart in grey too.
"""

from __future__ import annotations

from typing import Any

from orchestration.reports.figures.network import OTHER_COLOUR, expansion_of, kernel_of

SHADES = {
    (3, False): "#CCE8F8",
    (5, False): "#F0C15C",
    (3, True): "#56B4E9",
    (7, False): "#20AE88",
    (5, True): "#8C5D00",
    (7, True): "#004F3A",
}
"""By kernel, and whether the expansion is large; the lightest first. Hues are those of blocks."""
LARGE = 5
"""An expansion from which on it is large."""
DARK = ((5, True), (7, True))
"""Shades on which lines have to be light."""
SKIP_COLOUR, LINE_COLOUR, LIGHT_LINE_COLOUR = "#FFFFFF", "#374151", "#D1D5DB"
HATCHES = {"se": "////", "hswish": "....", "sepconv": "||||"}
"""By a word of the op's name."""


def op_style(op: str) -> dict[str, Any]:
    """How the area of an op is filled."""
    shade = (kernel_of(op) or 0, (expansion_of(op) or 0) >= LARGE)
    line = {"edgecolor": LIGHT_LINE_COLOUR if shade in DARK else LINE_COLOUR, "linewidth": 0.4}
    if op == "skip":
        return {"facecolor": SKIP_COLOUR, **line}
    if shade not in SHADES:
        return {"facecolor": OTHER_COLOUR, "hatch": "xxxx", **line}
    hatches = [HATCHES[word] for word in op.split("_") if word in HATCHES]
    return {"facecolor": SHADES[shade], "hatch": "".join(hatches), **line}
