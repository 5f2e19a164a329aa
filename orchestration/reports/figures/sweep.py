"""Figure of the results of a sweep: accuracy against latency, axes for each target.

Kinds of networks differ in marker and colour. A point is the mean over seeds, its error bars are
the sample standard deviation.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from orchestration.reports.figures.labels import LabelledPoint, write_labels
from orchestration.reports.figures.layout import DPI, FAINT, INK
from orchestration.reports.findings import random_name
from orchestration.reports.results import (
    has_latency,
    latency_ms,
    model_name,
    pareto_front,
    repeats,
    spread,
)
from orchestration.state.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Marker, colour, marker size and legend entry. Okabe and Ito's palette suits colour-blind readers.
MARKS = {
    "search": ("o", "#0072B2", 8, "searched"),
    "random": ("X", "#E69F00", 8, "best random network"),
    "reference": ("*", "#D55E00", 13, "reference"),
    "baseline": ("s", "#009E73", 7, "baseline"),
    "given": ("D", "#CC79A7", 7, "given"),
}
FORMATS = (".png", ".svg", ".pdf")
ABREAST = 3
"""Targets side by side."""
WIDTH_IN, HEIGHT_IN, HEADING_IN = 5.0, 4.2, 0.7
TICKS = {  # ticks within a decade, by the largest ratio of the axis limits that they are used for
    5.0: (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0),
    100.0: (1.0, 2.0, 5.0),
    math.inf: (1.0,),
}
ROOM = 1.25
"""Margin, as a factor, around networks that all have the same latency."""


@dataclass(frozen=True)
class Point:
    """A network, as the mean over its seeds."""

    kind: str
    budget_ms: float | None
    labelled: LabelledPoint
    """Latency in milliseconds and top-1 in percent, with their spreads."""

    @property
    def position(self) -> tuple[float, float]:
        """Latency in milliseconds and top-1 in percent."""
        return self.labelled.x, self.labelled.y


def write_sweep(results: Sequence[Result], title: str, path: Path) -> Path:
    """Write the figure; the suffix of `path` determines its format.

    Raises:
        ValueError: no network has an accuracy, or the suffix is of another format.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"'{path}' is no picture; expected a name that ends in {FORMATS}")
    sweep_figure(results, title).savefig(path, format=path.suffix[1:])
    return path


def sweep_png(results: Sequence[Result], title: str) -> bytes:
    """The figure as PNG; see `write_sweep`."""
    picture = io.BytesIO()
    sweep_figure(results, title).savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def sweep_figure(results: Sequence[Result], title: str) -> Figure:
    """The figure before it is encoded; see `write_sweep`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [result for result in results if result["top1"] is not None and has_latency(result)]
    if not shown:
        raise ValueError(f"no network of '{title}' has a top-1; add `retrain:` to its job file")
    targets = list(dict.fromkeys(result["target"] for result in shown))
    rows, columns = -(-len(targets) // ABREAST), min(len(targets), ABREAST)
    size = (WIDTH_IN * columns, HEIGHT_IN * rows + HEADING_IN)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)  # measures text
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    points = []
    for axes, target in zip(panels, targets, strict=False):
        points.append(_draw_panel(axes, [result for result in shown if result["target"] == target]))
    for axes in panels[len(targets) :]:
        axes.axis("off")
    figure.suptitle(f"{title}: accuracy against latency", color=INK, fontsize=12)
    _draw_legend(figure, shown)
    figure.draw_without_rendering()  # settles the layout, which labels depend on
    figure.set_layout_engine("none")
    for axes, points_of_target in zip(panels, points, strict=False):
        write_labels(axes, [point.labelled for point in points_of_target])
    return figure


def _draw_panel(axes: Axes, results: Sequence[Result]) -> list[Point]:
    """Draw the networks of one target."""
    points = [_point(group) for group in repeats(results)]
    _draw_frame(axes, results)
    _draw_front(axes, points, FAINT, "-")
    baselines = [point for point in points if point.kind == "baseline"]
    if len(baselines) > 1:
        _draw_front(axes, baselines, MARKS["baseline"][1], "--")
    for point in points:
        _draw_point(axes, point)
    for control in (point for point in points if point.kind == "random"):
        _draw_link(axes, control, points)
    axes.margins(x=0.12, y=0.12)
    heights = {point.labelled.y for point in points}
    if len(heights) == 1:  # matplotlib would leave 5 % above and below
        axes.set_ylim(min(heights) - 1, min(heights) + 1)
    _draw_scale(axes, [point.labelled.x for point in points])
    return points


def _draw_front(axes: Axes, points: Sequence[Point], colour: str, style: str) -> None:
    front = pareto_front((point.position for point in points), lambda position: position)
    axes.plot(*zip(*front, strict=True), color=colour, linestyle=style, linewidth=1.2, zorder=1)


def _draw_frame(axes: Axes, results: Sequence[Result]) -> None:
    axes.set_xscale("log")
    is_measured = any(result["measured_ms"] is not None for result in results)
    axes.set_xlabel(f"{'measured latency' if is_measured else 'latency by the table'}, ms")
    axes.set_ylabel("top-1, %")
    axes.set_title(results[0]["hardware"], fontsize=10, color=INK, loc="left")
    axes.yaxis.set_major_formatter(lambda percent, _place: f"{percent:g}" if percent <= 100 else "")
    axes.grid(color="#ECEEF0", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_scale(axes: Axes, times: Sequence[float]) -> None:
    """Ticks on the axis of latencies, sparse enough that their labels do not overlap."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if min(times) == max(times):
        axes.set_xlim(times[0] / ROOM, times[0] * ROOM)
    low, high = axes.get_xlim()
    ticks = next(ticks for reach, ticks in TICKS.items() if high / low <= reach)
    axes.xaxis.set_major_locator(LogLocator(subs=ticks))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _point(group: Sequence[Result]) -> Point:
    times = [latency_ms(result) for result in group]
    percents = [100 * top1 for result in group if (top1 := result["top1"]) is not None]
    labelled = LabelledPoint(
        x=fmean(times),
        y=fmean(percents),
        label=_label(group[0]),
        x_spread=spread(times) or 0.0,
        y_spread=spread(percents) or 0.0,
    )
    return Point(group[0]["kind"], group[0]["budget_ms"], labelled)


def _label(result: Result) -> str:
    """Details that the legend lacks: budget of a search, name of a model."""
    if result["kind"] in ("reference", "random"):
        return ""
    if result["kind"] != "search":
        return model_name(result)
    budget_ms = f"{result['budget_ms']:.3g} ms"
    return f"{result['budget']}, {budget_ms}" if isinstance(result["budget"], str) else budget_ms


def _draw_point(axes: Axes, point: Point) -> None:
    marker, colour, size, _ = MARKS[point.kind]
    axes.errorbar(
        point.labelled.x,
        point.labelled.y,
        xerr=point.labelled.x_spread or None,
        yerr=point.labelled.y_spread or None,
        fmt=marker,
        color=colour,
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.8,
        elinewidth=1.0,
        capsize=2.5,
        zorder=3,
    )


def _draw_link(axes: Axes, control: Point, points: Iterable[Point]) -> None:
    """Draw a line from a random network to the search with the same budget."""
    for point in points:
        if point.kind == "search" and point.budget_ms == control.budget_ms:
            ends = zip(control.position, point.position, strict=True)
            axes.plot(*ends, color=MARKS["random"][1], linewidth=1.0, linestyle=":", zorder=2)


def _draw_legend(figure: Figure, results: Sequence[Result]) -> None:
    from matplotlib.lines import Line2D

    names = {result["kind"]: MARKS[result["kind"]][3] for result in results}
    random = next((result for result in results if result["kind"] == "random"), None)
    if random is not None:
        names["random"] = f"{random_name(random)} for the budget it is joined to"
    marks = [
        Line2D([], [], color=c, marker=marker, markersize=size, linestyle="none", label=names[kind])
        for kind, (marker, c, size, _) in MARKS.items()
        if kind in names
    ]
    marks.append(Line2D([], [], color=FAINT, linewidth=1.2, label="Pareto front"))
    models = {model_name(result) for result in results if result["kind"] == "baseline"}
    if len(models) > 1:
        label, colour = "Pareto front of the baselines", MARKS["baseline"][1]
        marks.append(Line2D([], [], color=colour, linestyle="--", linewidth=1.2, label=label))
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
