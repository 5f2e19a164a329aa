"""Cross-target evaluation as a figure: the networks of every target measured on every target.

The counterpart of table 5 of ProxylessNAS. A row per network, a column per target. Only networks
with the same budget are comparable, so rows are grouped by the text of their budgets, and the
fastest network on a target is marked within its group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from orchestration.reports.cross_target import Group, Matrix, Specialized, grouped, marked_best
from orchestration.reports.figures.layout import (
    FAINT,
    INK,
    MARGIN_IN,
    SMALL_PT,
    TEXT_PT,
    WIDTH_IN,
    Canvas,
    Panel,
    heading,
    ms_text,
    png,
    stack_panels,
    text_height_in,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME_IN, TOP1_IN, CELL_IN, WIDEST_IN, ROW_IN = 2.5, 0.75, 0.95, 1.9, 0.68
"""Widths of names and of accuracies, smallest and largest width of a cell; height of a row."""
NARROWEST_IN = 7.5
"""Smallest width of the figure, however few targets there are."""
MS_PT = 11.0
NOTES = (
    "Latency in ms of each network on each target, measured in one session after all searches: "
    "it may differ a little from the tables. Framed and 'best' = the fastest on that target in its "
    "group; darker = slower, '1.20 times' = relative to the best; 'own' = the target that the "
    "network was searched for."
)
OTHERS = "others: their budgets differ"
LIGHTEST, DARKEST = (0.92, 0.96, 0.99), (0.36, 0.61, 0.84)
"""Colours of the best and of the slowest network as (red, green, blue). They differ in lightness,
and text is legible on both."""
DARKEST_RATIO = 2.0
"""Ratio to the best that gets the darkest colour, unless a larger ratio occurs."""


def matrix_png(matrix: Matrix, *, title: str) -> bytes:
    """Figure of a matrix as PNG: a table with cells shaded by their ratio to the best."""
    return png(matrix_figure(matrix, title=title))


def matrix_figure(matrix: Matrix, *, title: str) -> Figure:
    """The figure before it is encoded; see `matrix_png`."""
    groups, count = grouped(matrix), len(matrix.targets)
    cell_in = (WIDTH_IN - 2 * MARGIN_IN - NAME_IN - TOP1_IN) / count
    cell_in = min(WIDEST_IN, max(CELL_IN, cell_in))
    width_in = max(NARROWEST_IN, 2 * MARGIN_IN + NAME_IN + TOP1_IN + cell_in * count)
    table = _Table(matrix, cell_in, marked_best(matrix), _greatest_ratio(matrix, groups))
    panels = [heading(title, NOTES, width_in), table.header()]
    for group in groups:
        if len(groups) > 1 or group.asked:
            panels.append(table.group_line(group))
        panels += [table.row(network, group) for network in group.networks]
    return stack_panels(panels, width_in)


def _greatest_ratio(matrix: Matrix, groups: Sequence[Group]) -> float:
    ratios = [
        ms / fastest_ms
        for group in groups
        for target in matrix.targets
        if (fastest_ms := group.fastest_ms(target)) is not None
        for network in group.networks
        if (ms := network.latencies_ms.get(target)) is not None
    ]
    return max([DARKEST_RATIO, *ratios])


def shade(ratio: float, greatest: float) -> tuple[float, float, float]:
    """Colour of a cell that takes `ratio` times as long as the best, on a logarithmic scale."""
    part = log(ratio) / log(greatest)
    red, green, blue = (a + part * (b - a) for a, b in zip(LIGHTEST, DARKEST, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class _Table:
    """Layout of a matrix as panels."""

    matrix: Matrix
    cell_in: float
    best: frozenset[tuple[str, str]]
    greatest_ratio: float

    def _columns(self) -> Iterator[tuple[float, str]]:
        """Left edge and name of every target's column."""
        for number, target in enumerate(self.matrix.targets):
            yield MARGIN_IN + NAME_IN + TOP1_IN + number * self.cell_in, target

    def header(self) -> Panel:
        """Panel with the column names, aligned at their last lines."""
        names = {
            target: wrapped(target, self.cell_in - 0.1, TEXT_PT, bold=True)
            for target in self.matrix.targets
        }
        height_in = max(text_height_in(name, TEXT_PT) for name in names.values()) + 0.1
        look = {"va": "bottom", "fontweight": "bold"}

        def draw(canvas: Canvas, top_in: float) -> None:
            below_in = top_in + height_in - 0.05
            canvas.text(MARGIN_IN, below_in, "network", **look)
            right_in = MARGIN_IN + NAME_IN + TOP1_IN - 0.15
            canvas.text(right_in, below_in, "top-1", ha="right", **look)
            for left_in, target in self._columns():
                middle_in = left_in + self.cell_in / 2
                canvas.text(middle_in, below_in, names[target], ha="center", **look)

        return Panel(height_in, draw)

    def group_line(self, group: Group) -> Panel:
        """Panel with the budget of a group."""
        text = f"asked for {group.asked}" if group.asked else OTHERS
        wide_in = NAME_IN + TOP1_IN + self.cell_in * len(self.matrix.targets)
        text = wrapped(text, wide_in, TEXT_PT)

        def draw(canvas: Canvas, top_in: float) -> None:
            canvas.box(MARGIN_IN, top_in + 0.06, wide_in, 0.01, facecolor=FAINT)
            canvas.text(MARGIN_IN, top_in + 0.12, text)

        return Panel(text_height_in(text, TEXT_PT) + 0.18, draw)

    def row(self, network: Specialized, group: Group) -> Panel:
        """Panel with the name, accuracy and cells of a network."""
        name = wrapped(network.name, NAME_IN - 0.15, TEXT_PT)
        height_in = max(ROW_IN, text_height_in(name, TEXT_PT) + 0.15)
        top1 = "-" if network.top1 is None else f"{100 * network.top1:.1f} %"

        def draw(canvas: Canvas, top_in: float) -> None:
            middle_in = top_in + height_in / 2
            canvas.text(MARGIN_IN, middle_in, name, va="center")
            right_in = MARGIN_IN + NAME_IN + TOP1_IN - 0.15
            canvas.text(right_in, middle_in, top1, va="center", ha="right")
            for left_in, target in self._columns():
                bounds = (left_in, top_in, self.cell_in, height_in)
                self._draw_cell(canvas, bounds, network, target, group.fastest_ms(target))

        return Panel(height_in, draw)

    def _draw_cell(
        self,
        canvas: Canvas,
        bounds: tuple[float, float, float, float],
        network: Specialized,
        target: str,
        fastest_ms: float | None,
    ) -> None:
        left_in, top_in, wide_in, tall_in = bounds
        ms = network.latencies_ms.get(target)
        is_best = (network.name, target) in self.best
        ratio = None if ms is None or fastest_ms is None else ms / fastest_ms
        colour = shade(ratio, self.greatest_ratio) if ratio else (1.0, 1.0, 1.0)
        edge = {"edgecolor": INK if is_best else FAINT, "linewidth": 2.5 if is_best else 0.6}
        canvas.box(
            left_in + 0.03, top_in + 0.03, wide_in - 0.06, tall_in - 0.06, facecolor=colour, **edge
        )
        lines = [("-" if ms is None else ms_text(ms), MS_PT)]
        if ratio is not None:
            lines.append(("best" if is_best else f"{ratio:.2f} times", SMALL_PT))
        if network.own == target:
            lines.append(("own", SMALL_PT))
        y_in = top_in + (tall_in - sum(text_height_in(*line) for line in lines)) / 2 + 0.02
        for text, points in lines:
            look = {"ha": "center", "fontsize": points}
            weight = "bold" if is_best or text == "own" else "normal"
            canvas.text(left_in + wide_in / 2, y_in, text, fontweight=weight, **look)
            y_in += text_height_in(text, points)
