"""Layout of figures: panels stacked on an opaque light background that suits light and dark pages.

The height of a figure is the sum of the heights of its panels, so that a figure with more content
grows instead of shrinking its text. Positions are inches from the upper left corner. Text is
measured before it is written, and wrapped where it would be cut off.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

INK, FAINT, BACKGROUND = "#111827", "#8A949E", "#FCFCFA"
WIDTH_IN, DPI = 10.5, 160
MARGIN_IN = 0.15
TITLE_PT, TEXT_PT, SMALL_PT = 13.0, 9.5, 8.0
"""Text sizes: 8 points are 9 pixels in a figure that is displayed 900 pixels wide."""
SWATCH_IN = 0.18

Style = Mapping[str, Any]
"""Properties of a matplotlib patch: face colour, hatch and the like."""


@dataclass(frozen=True)
class Canvas:
    """A figure with drawing methods whose positions are inches from its upper left corner."""

    figure: Figure

    def text(self, x_in: float, y_in: float, text: str, **style: Any) -> Text:
        """Write text. The position is its upper left corner unless `ha` or `va` say otherwise."""
        width_in, height_in = self.figure.get_size_inches()
        look = {"color": INK, "va": "top", "fontsize": TEXT_PT, "parse_math": False, **style}
        return self.figure.text(x_in / width_in, 1 - y_in / height_in, text, **look)

    def box(
        self, left_in: float, top_in: float, width_in: float, height_in: float, **style: Any
    ) -> None:
        """Draw a rectangle."""
        from matplotlib.patches import Rectangle

        corner = (left_in, self.figure.get_figheight() - top_in - height_in)
        inches = self.figure.dpi_scale_trans
        self.figure.add_artist(Rectangle(corner, width_in, height_in, transform=inches, **style))

    def axes(self, left_in: float, top_in: float, width_in: float, height_in: float) -> Axes:
        """Add axes at a position; ticks and labels extend beyond it."""
        whole_in, tall_in = self.figure.get_size_inches()
        below = 1 - (top_in + height_in) / tall_in
        bounds = (left_in / whole_in, below, width_in / whole_in, height_in / tall_in)
        return self.figure.add_axes(bounds, facecolor=BACKGROUND)


@dataclass(frozen=True)
class Panel:
    """A horizontal part of a figure, as wide as the figure."""

    height_in: float
    draw: Callable[[Canvas, float], None]
    """Called with a canvas and the distance of the panel from the upper edge, inches."""


def stack_panels(panels: Sequence[Panel], width_in: float = WIDTH_IN) -> Figure:
    """A figure of these panels, from top to bottom."""
    from matplotlib.figure import Figure

    *tops, height_in = accumulate((panel.height_in for panel in panels), initial=MARGIN_IN)
    figure = Figure(figsize=(width_in, height_in + MARGIN_IN), dpi=DPI, facecolor=BACKGROUND)
    for panel, top_in in zip(panels, tops, strict=True):
        panel.draw(Canvas(figure), top_in)
    return figure


def png(figure: Figure) -> bytes:
    """Encode a figure as PNG. Equal figures have equal bytes."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


@lru_cache(maxsize=4096)
def text_width_in(text: str, points: float, *, bold: bool = False) -> float:
    """Width of a line of text, inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=points, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def ms_text(ms: float) -> str:
    """Milliseconds with enough digits to tell networks apart: 0.125, 12.35, 123.4."""
    return f"{ms:.3f}" if ms < 10 else f"{ms:.2f}" if ms < 100 else f"{ms:.1f}"


def text_height_in(text: str, points: float) -> float:
    """Height of text with its line spacing, inches."""
    return (1 + text.count("\n")) * points * 1.25 / 72


def wrapped(text: str, room_in: float, points: float, *, bold: bool = False) -> str:
    """Wrap text to a width, after spaces or punctuation, or within a word if it is too long."""

    def fits(line: str) -> bool:
        return text_width_in(line.rstrip(), points, bold=bold) <= room_in

    lines = [""]
    for piece in re.findall(r"[^\s\-_./,]*[\s\-_./,]|[^\s\-_./,]+", text):
        if not fits(lines[-1] + piece) and lines[-1]:
            lines.append("")
        for part in [piece] if fits(lines[-1] + piece) else piece:
            if lines[-1] and not fits(lines[-1] + part):
                lines.append("")
            lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def heading(title: str, notes: str, width_in: float = WIDTH_IN) -> Panel:
    """Panel with a title, and notes on how to read the figure below it."""
    room_in = width_in - 2 * MARGIN_IN
    title = wrapped(title, room_in, TITLE_PT, bold=True)
    notes = wrapped(notes, room_in, TEXT_PT)
    title_in = text_height_in(title, TITLE_PT) + 0.04

    def draw(canvas: Canvas, top_in: float) -> None:
        canvas.text(MARGIN_IN, top_in, title, fontsize=TITLE_PT, fontweight="bold")
        canvas.text(MARGIN_IN, top_in + title_in, notes)

    return Panel(title_in + (text_height_in(notes, TEXT_PT) if notes else 0) + 0.08, draw)


def key(caption: str, swatches: Mapping[str, Style], width_in: float = WIDTH_IN) -> Panel:
    """Legend panel: `caption`, then a swatch for each name, wrapped to as many lines as needed."""
    begin_in = MARGIN_IN + (text_width_in(caption, TEXT_PT) + 0.15 if caption else 0)
    line_in, positions, x_in, line = 0.24, [], begin_in, 0
    for name in swatches:
        wide_in = SWATCH_IN + 0.07 + text_width_in(name, TEXT_PT)
        if x_in + wide_in > width_in - MARGIN_IN and x_in > begin_in:
            x_in, line = begin_in, line + 1
        positions.append((x_in, line * line_in))
        x_in += wide_in + 0.2

    def draw(canvas: Canvas, top_in: float) -> None:
        canvas.text(MARGIN_IN, top_in, caption)
        for (left_in, down_in), (name, style) in zip(positions, swatches.items(), strict=True):
            canvas.box(left_in, top_in + down_in, SWATCH_IN, 0.15, **style)
            canvas.text(left_in + SWATCH_IN + 0.07, top_in + down_in, name)

    return Panel((line + 1) * line_in + 0.06, draw)
