"""Pictures as opaque light cards, which read the same on white and on dark pages.

A card is filled from top to bottom with bands; their heights make its height, so that a picture of
more grows instead of getting smaller. Places are inches from the upper left corner. Text is
measured before it is written, and goes on in the next line where it would be cut.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

INK, FAINT, CARD = "#111827", "#8A949E", "#FCFCFA"
WIDTH_IN, DPI = 10.5, 160
MARGIN_IN = 0.15
TITLE_PT, TEXT_PT, SMALL_PT = 13.0, 9.5, 8.0
"""Sizes of text: 8 points are 9 pixels where a card is shown 900 pixels wide."""
SWATCH_IN = 0.18

Style = Mapping[str, Any]
"""Of a patch of matplotlib: face colour, hatch and the like."""


@dataclass(frozen=True)
class Canvas:
    """A figure to write on."""

    figure: Figure

    def text(self, x_in: float, y_in: float, words: str, **style: Any) -> Text:
        """Write; the place is the upper left corner of the text unless `ha` or `va` say else."""
        width_in, height_in = self.figure.get_size_inches()
        look = {"color": INK, "va": "top", "fontsize": TEXT_PT, "parse_math": False, **style}
        return self.figure.text(x_in / width_in, 1 - y_in / height_in, words, **look)

    def box(
        self, left_in: float, top_in: float, width_in: float, height_in: float, **style: Any
    ) -> None:
        """Draw a rectangle."""
        from matplotlib.patches import Rectangle

        corner = (left_in, self.figure.get_figheight() - top_in - height_in)
        inches = self.figure.dpi_scale_trans
        self.figure.add_artist(Rectangle(corner, width_in, height_in, transform=inches, **style))

    def axes(self, left_in: float, top_in: float, width_in: float, height_in: float) -> Axes:
        """Axes at this place; their ticks and labels lie around it."""
        whole_in, tall_in = self.figure.get_size_inches()
        below = 1 - (top_in + height_in) / tall_in
        place = (left_in / whole_in, below, width_in / whole_in, height_in / tall_in)
        return self.figure.add_axes(place, facecolor=CARD)


@dataclass(frozen=True)
class Panel:
    """A part of a card, as wide as the card."""

    height_in: float
    draw: Callable[[Canvas, float], None]
    """Draws it on a card, so many inches below the upper edge."""


def stack_panels(bands: Sequence[Panel], width_in: float = WIDTH_IN) -> Figure:
    """A card of these bands, from top to bottom."""
    from matplotlib.figure import Figure

    *tops, height_in = accumulate((band.height_in for band in bands), initial=MARGIN_IN)
    figure = Figure(figsize=(width_in, height_in + MARGIN_IN), dpi=DPI, facecolor=CARD)
    for band, top_in in zip(bands, tops, strict=True):
        band.draw(Canvas(figure), top_in)
    return figure


def png(figure: Figure) -> bytes:
    """The bytes of a picture; equal pictures have equal ones."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def text_width_in(words: str, points: float, *, bold: bool = False) -> float:
    """How wide a line gets."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=points, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(words, font, ismath=False)[0]) / 72


def ms_text(ms: float) -> str:
    """Milliseconds with as many digits as tell networks apart: 0.125, 12.35, 123.4."""
    return f"{ms:.3f}" if ms < 10 else f"{ms:.2f}" if ms < 100 else f"{ms:.1f}"


def lines_in(words: str, points: float) -> float:
    """How tall text gets, with the space between its lines."""
    return (1 + words.count("\n")) * points * 1.25 / 72


def wrapped(words: str, room_in: float, points: float, *, bold: bool = False) -> str:
    """Text in lines that fit: broken behind a space or a sign, within a word if it must be."""
    lines = [""]
    for piece in re.findall(r"[^\s\-_./,]*[\s\-_./,]|[^\s\-_./,]+", words):
        longer = lines[-1] + piece
        if lines[-1] and text_width_in(longer.rstrip(), points, bold=bold) > room_in:
            lines.append("")
        for letter in piece:
            longer = lines[-1] + letter
            if lines[-1] and text_width_in(longer.rstrip(), points, bold=bold) > room_in:
                lines.append("")
            lines[-1] += letter
    return "\n".join(line.rstrip() for line in lines)


def heading(title: str, notes: str, width_in: float = WIDTH_IN) -> Panel:
    """The title, and below it what one should know to read the picture."""
    room_in = width_in - 2 * MARGIN_IN
    title = wrapped(title, room_in, TITLE_PT, bold=True)
    notes = wrapped(notes, room_in, TEXT_PT)
    title_in = lines_in(title, TITLE_PT) + 0.04

    def draw(card: Canvas, top_in: float) -> None:
        card.text(MARGIN_IN, top_in, title, fontsize=TITLE_PT, fontweight="bold")
        card.text(MARGIN_IN, top_in + title_in, notes)

    return Panel(title_in + (lines_in(notes, TEXT_PT) if notes else 0) + 0.08, draw)


def key(words: str, swatches: Mapping[str, Style], width_in: float = WIDTH_IN) -> Panel:
    """What colours mean: `words`, then a swatch for each name, in as many lines as they take."""
    begin_in = MARGIN_IN + (text_width_in(words, TEXT_PT) + 0.15 if words else 0)
    line_in, places, x_in, line = 0.24, [], begin_in, 0
    for name in swatches:
        wide_in = SWATCH_IN + 0.07 + text_width_in(name, TEXT_PT)
        if x_in + wide_in > width_in - MARGIN_IN and x_in > begin_in:
            x_in, line = begin_in, line + 1
        places.append((x_in, line * line_in))
        x_in += wide_in + 0.2

    def draw(card: Canvas, top_in: float) -> None:
        card.text(MARGIN_IN, top_in, words)
        for (left_in, down_in), (name, style) in zip(places, swatches.items(), strict=True):
            card.box(left_in, top_in + down_in, SWATCH_IN, 0.15, **style)
            card.text(left_in + SWATCH_IN + 0.07, top_in + down_in, name)

    return Panel((line + 1) * line_in + 0.06, draw)
