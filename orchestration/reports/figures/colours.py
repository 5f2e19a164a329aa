"""Fill styles of ops that are drawn as adjacent areas, the same in every figure.

Hue = kernel, lightness = expansion, hatch = further properties of the op. All shades differ in
lightness, so that ops can be told apart in greyscale as well.
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
"""Colour by (kernel, whether the expansion is large), lightest first; hues as in block figures."""
LARGE = 5
"""Smallest expansion that counts as large."""
DARK = ((5, True), (7, True))
"""Shades that need light lines."""
SKIP_COLOUR, LINE_COLOUR, LIGHT_LINE_COLOUR = "#FFFFFF", "#374151", "#D1D5DB"
HATCHES = {"se": "////", "hswish": "....", "sepconv": "||||"}
"""Hatch pattern by a part of the op's name."""


def op_style(op: str) -> dict[str, Any]:
    """Matplotlib style of the area of an op."""
    shade = (kernel_of(op) or 0, (expansion_of(op) or 0) >= LARGE)
    line = {"edgecolor": LIGHT_LINE_COLOUR if shade in DARK else LINE_COLOUR, "linewidth": 0.4}
    if op == "skip":
        return {"facecolor": SKIP_COLOUR, **line}
    if shade not in SHADES:
        return {"facecolor": OTHER_COLOUR, "hatch": "xxxx", **line}
    hatches = [HATCHES[word] for word in op.split("_") if word in HATCHES]
    return {"facecolor": SHADES[shade], "hatch": "".join(hatches), **line}
