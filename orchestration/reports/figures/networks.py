"""Figure of the networks of a sweep, one below the other and aligned by site.

Shows the preferences of each target, as figure 4 of ProxylessNAS: a block per site, colour =
kernel, height = expansion, a gap = skipped. Its share of the latency is below the block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_core.architecture import FORMAT
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
    key,
    ms_text,
    png,
    stack_panels,
    text_height_in,
    wrapped,
)
from orchestration.reports.figures.network import (
    BAR_COLOUR,
    FIXED_COLOUR,
    KERNEL_COLOURS,
    Part,
    draw_block,
    parts,
)
from orchestration.reports.findings import random_name
from orchestration.reports.results import has_latency, latency_ms, model_name, seed_of
from orchestration.state.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLOCK_IN, SHARES_IN, GAP_IN = 0.78, 0.26, 0.16
"""Heights of the tallest block, of the shares below it, and of the gap below a row."""
NARROW_IN, NARROWEST_IN = 0.8, 0.42
"""Column widths: below the first, text is smaller, blocks are wider and labels are shorter; no
column is narrower than the second, the figure grows instead."""
HEAD_PT = 11.0
TRACK_COLOUR = "#E5E7EB"


@dataclass(frozen=True)
class Row:
    """A network: the text above its blocks, and its parts by name."""

    label: str
    parts: Mapping[str, Part]


@dataclass(frozen=True)
class Columns:
    """The columns shared by all rows, one for each part, and the style in which parts are drawn."""

    names: tuple[str, ...]

    @property
    def room_in(self) -> float:
        """Width of all columns together."""
        return max(WIDTH_IN - 2 * MARGIN_IN, NARROWEST_IN * len(self.names))

    @property
    def width_in(self) -> float:
        """Width of one column."""
        return self.room_in / len(self.names)

    @property
    def is_narrow(self) -> bool:
        """Whether columns are too narrow for full-size labels."""
        return self.width_in < NARROW_IN

    @property
    def points(self) -> float:
        """Text size."""
        return SMALL_PT if self.is_narrow else TEXT_PT

    @property
    def block(self) -> float:
        """Width of a block as a fraction of the column."""
        return 0.86 if self.is_narrow else 0.72

    def label(self, part: Part) -> str:
        """Label of a block."""
        return part.label.replace("hswish", "hs") if self.is_narrow else part.label


def networks_png(
    results: Sequence[Result], tables: Mapping[str, Mapping[str, Any]], *, title: str
) -> bytes:
    """Figure of all networks of a search space as PNG: a row for each, grouped by target.

    Args:
        results: contents of `result.json` files in the order of rows; models without sites are left
            out.
        tables: JSON of latency tables by the `table_key` of results. If the table is missing or
            does not cover a network, its row has no shares.
        title: of the figure.

    Raises:
        ValueError: no result has sites, or see `figures.network.parts`.
    """
    return png(networks_figure(results, tables, title=title))


def networks_figure(
    results: Sequence[Result], tables: Mapping[str, Mapping[str, Any]], *, title: str
) -> Figure:
    """The figure before it is encoded; see `networks_png`."""
    shown = [result for result in results if result["architecture"].get("format") == FORMAT]
    if not shown:
        raise ValueError(
            f"'{title}' has no network of sites to draw; expected a search or reference"
        )
    rows = [(result, _row(result, tables)) for result in shown]
    columns = _columns(row for _, row in rows)
    width_in = columns.room_in + 2 * MARGIN_IN
    panels = [heading(title, "", width_in), _key(columns, [row for _, row in rows])]
    for target in dict.fromkeys(result["target"] for result in shown):
        own = [(result, row) for result, row in rows if result["target"] == target]
        longest = _longest(row for _, row in own)
        panels.append(_target_panel(own[0][0]["hardware"], columns))
        panels += [_row_panel(row, columns, longest) for _, row in own]
    return stack_panels(panels, width_in)


def _row(result: Result, tables: Mapping[str, Mapping[str, Any]]) -> Row:
    is_covered = result["table_ms"] is not None
    table = tables.get(result["table_key"]) if is_covered else None
    return Row(_label(result), {part.name: part for part in parts(result["architecture"], table)})


def _label(result: Result) -> str:
    """Text above a row: `mobile, budget 60% (0.125 ms): 0.094 ms measured, top-1 99.3 %`."""
    return f"{result['target']}, {_subject(result)}: {', '.join(_figures(result))}".removesuffix(
        ": "
    )


def _subject(result: Result) -> str:
    """The budget, or the name of a network without one."""
    seed = f", seed {seed_of(result)}" if seed_of(result) else ""
    if result["kind"] == "reference":
        return f"reference{seed}"
    if result["budget_ms"] is None:
        return model_name(result) + seed
    budget = f"{ms_text(result['budget_ms'])} ms"
    if isinstance(result["budget"], str):
        budget = f"{result['budget']} ({budget})"
    kind = f"{random_name(result)} for" if result["kind"] == "random" else "budget"
    return f"{kind} {budget}{seed}"


def _figures(result: Result) -> Iterator[str]:
    """Latency and accuracy, as far as they are known."""
    if has_latency(result):
        how = "by the table" if result["measured_ms"] is None else "measured"
        yield f"{ms_text(latency_ms(result))} ms {how}"
    if result["top1"] is not None:
        yield f"top-1 {100 * result['top1']:.1f} %"


def _columns(rows: Iterable[Row]) -> Columns:
    """A column for each part, in order of first occurrence; the head is last."""
    names = dict.fromkeys(name for row in rows for name in row.parts)
    return Columns((*(name for name in names if name != "head"), "head"))


def _shares(rows: Iterable[Row]) -> list[float]:
    return [part.share for row in rows for part in row.parts.values() if part.share is not None]


def _longest(rows: Iterable[Row]) -> float:
    """The largest share among some networks; 0 if they have none."""
    return max(map(abs, _shares(rows)), default=0.0)


def _key(columns: Columns, rows: Sequence[Row]) -> Panel:
    """Legend panel for blocks, bars and abbreviations."""
    edge = {"edgecolor": INK, "linewidth": 0.8}
    swatches = {f"{k}x{k}": {"facecolor": c, **edge} for k, c in KERNEL_COLOURS.items()}
    swatches["no choice"] = {"facecolor": FIXED_COLOUR, **edge}
    shares = _shares(rows)
    if shares:
        below = " (below 0: an offset from the stem's)" if min(shares) < 0 else ""
        swatches[f"share of latency{below}"] = {"facecolor": BAR_COLOUR}
    caption = "height = expansion, gap = skipped, "
    if columns.is_narrow and any(" hs" in label for label in _labels(columns, rows)):
        caption += "hs = h-swish, "
    return key(f"{caption}colour = kernel:", swatches)


def _labels(columns: Columns, rows: Iterable[Row]) -> list[str]:
    return [columns.label(part) for row in rows for part in row.parts.values()]


def _target_panel(hardware: str, columns: Columns) -> Panel:
    """Panel with the hardware, and the names of the columns below it."""
    names = [wrapped(name, columns.width_in - 0.04, columns.points) for name in columns.names]
    hardware = wrapped(hardware, columns.room_in, HEAD_PT, bold=True)
    hardware_in = text_height_in(hardware, HEAD_PT) + 0.16
    height_in = hardware_in + max(text_height_in(name, columns.points) for name in names) + 0.12

    def draw(canvas: Canvas, top_in: float) -> None:
        canvas.box(MARGIN_IN, top_in, columns.room_in, 0.01, facecolor=FAINT)
        canvas.text(MARGIN_IN, top_in + 0.08, hardware, fontsize=HEAD_PT, fontweight="bold")
        look = {"ha": "center", "fontsize": columns.points, "color": BAR_COLOUR}
        for x, name in enumerate(names):
            middle_in = MARGIN_IN + (x + 0.5) * columns.width_in
            canvas.text(middle_in, top_in + hardware_in, name, **look)

    return Panel(height_in, draw)


def _row_panel(row: Row, columns: Columns, longest: float) -> Panel:
    """Panel of a network: its text, its blocks, and their shares if known."""
    label = wrapped(row.label, columns.room_in, TEXT_PT)
    label_in = text_height_in(label, TEXT_PT) + 0.05
    axes_in = BLOCK_IN + (SHARES_IN if _shares([row]) else 0.0)

    def draw(canvas: Canvas, top_in: float) -> None:
        canvas.text(MARGIN_IN, top_in, label)
        axes = canvas.axes(MARGIN_IN, top_in + label_in, columns.room_in, axes_in)
        right = len(columns.names) - 0.5
        axes.set(xlim=(-0.5, right), ylim=(0.52 - 1.04 * axes_in / BLOCK_IN, 0.52))
        axes.axis("off")
        axes.plot([-0.5, right], [0, 0], color=FAINT, linewidth=1.5, zorder=0)
        for x, name in enumerate(columns.names):
            if name in row.parts:
                _draw_part(axes, x, row.parts[name], columns, longest)

    return Panel(label_in + axes_in + GAP_IN, draw)


def _draw_part(axes: Axes, x: float, part: Part, columns: Columns, longest: float) -> None:
    """Draw a block, and below it a bar and a number for its share of the latency."""
    draw_block(axes, x, part, columns.label(part), columns.points, columns.block)
    if not part.share:
        return
    length = max(0.0, part.share / longest)
    for share, colour in ((1.0, TRACK_COLOUR), (length, BAR_COLOUR)):
        left = x - columns.block / 2
        axes.barh(-0.6, share * columns.block, height=0.06, left=left, color=colour)
    percent = f"{round(100 * part.share)} %"
    axes.text(x, -0.66, percent, ha="center", va="top", color=INK, fontsize=columns.points)
