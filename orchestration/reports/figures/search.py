"""Figure of the course of a search: op probabilities per site, latency, accuracy and entropy.

Shapes: K = candidate ops at a site.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from orchestration.reports.figures.colours import op_style
from orchestration.reports.figures.layout import (
    BACKGROUND,
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
from orchestration.reports.figures.network import op_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABREAST = 7
"""Sites side by side."""
PANEL_IN, CURVE_IN, TICKS_IN = 1.1, 1.9, 0.36
"""Heights of the axes of a site, of a curve, and of the tick labels below them."""
LEFT_IN, BETWEEN_IN = 0.55, 0.16
"""Space left of axes with tick labels, and between axes that share them."""
PHASES = {"warmup": ("warm-up (shaded)", "s", "#D55E00"), "search": ("search", "o", "#0072B2")}
"""Legend entry, marker and colour (Okabe and Ito) of each phase."""
OTHER_PHASE = ("o", "#009E73")
SHADE = "#ECEEF0"
MANY = 40
"""Number of epochs from which markers are small."""


@dataclass(frozen=True)
class Curve:
    """A value per epoch."""

    title: str
    note: str
    values: tuple[float, ...]
    """One for each entry of the history; NaN if unknown."""
    line: float | None = None
    """Value to aim for, drawn as a dashed line."""


@dataclass(frozen=True)
class SearchTrace:
    """The recorded course of a search."""

    title: str
    """Title of the figure."""
    history: Sequence[Mapping[str, Any]]
    """`search_history` of a `result.json`, an entry per epoch; values that are None or not finite
    are left out."""
    probs: Sequence[Mapping[str, Any]] = ()
    """Per epoch of the search {"epoch": int, "probs": K numbers for each site}. Without them there
    are no panels of sites. If an epoch occurs twice, the last entry counts."""
    sites: Sequence[str] = ()
    """Names of the sites."""
    ops: Sequence[Sequence[str]] = ()
    """Names of the ops at each site, K each."""
    budget_ms: float | None = None
    """Budget of the search, if there was one."""


def search_png(trace: SearchTrace) -> bytes:
    """Figure of a search as PNG.

    Raises:
        ValueError: the trace is empty, or `probs` do not match `sites` and `ops`.
    """
    return png(search_figure(trace))


def search_figure(trace: SearchTrace) -> Figure:
    """The figure before it is encoded; see `search_png`."""
    history, sites, ops = trace.history, trace.sites, trace.ops
    if not history and not trace.probs:
        raise ValueError(
            f"'{trace.title}' has no epochs of a search to draw; expected one at least"
        )
    panels = [heading(trace.title, "")]
    if trace.probs:
        panels += _sites_panels(_by_epoch(trace.probs, sites, ops), sites, ops)
    if history:
        panels += [_phases_key(history), _curves_panel(history, _curves(history, trace.budget_ms))]
    return stack_panels(panels)


def _by_epoch(
    probs: Sequence[Mapping[str, Any]], sites: Sequence[str], ops: Sequence[Sequence[str]]
) -> dict[int, list[list[float]]]:
    """Probabilities by epoch in ascending order, after a check of their shapes."""
    counts = [len(names) for names in ops]
    if len(counts) != len(sites):
        raise ValueError(
            f"{len(counts)} lists of ops for {len(sites)} sites; expected one for each"
        )
    for entry in probs:
        sizes = [len(site) for site in entry["probs"]]
        if sizes != counts:
            raise ValueError(
                f"probs of epoch {entry['epoch']} are of {sizes} ops, site by site; the sites have "
                f"{counts}"
            )
    return {
        entry["epoch"]: entry["probs"] for entry in sorted(probs, key=lambda entry: entry["epoch"])
    }


def _sites_panels(
    probs: Mapping[int, list[list[float]]], sites: Sequence[str], ops: Sequence[Sequence[str]]
) -> Iterator[Panel]:
    """Legend, and rows of sites of about equal length."""
    names = dict.fromkeys(op for site in ops for op in site if op != "skip")
    every = [*names, *(["skip"] if any("skip" in site for site in ops) else [])]
    yield key("probability of:", {op_label(op).replace("\n", " "): op_style(op) for op in every})
    rows = -(-len(sites) // ABREAST)
    length = -(-len(sites) // rows)
    for start in range(0, len(sites), length):
        yield _sites_row(probs, range(start, min(start + length, len(sites))), length, sites, ops)


def _sites_row(
    probs: Mapping[int, list[list[float]]],
    numbers: Sequence[int],
    length: int,
    sites: Sequence[str],
    ops: Sequence[Sequence[str]],
) -> Panel:
    """Panel with a row of sites."""
    room_in = WIDTH_IN - MARGIN_IN - LEFT_IN - BETWEEN_IN * (length - 1)
    wide_in = room_in / length
    names = [wrapped(sites[number], wide_in, TEXT_PT) for number in numbers]
    names_in = max(text_height_in(name, TEXT_PT) for name in names) + 0.04

    def draw(canvas: Canvas, top_in: float) -> None:
        for column, number in enumerate(numbers):
            left_in = LEFT_IN + column * (wide_in + BETWEEN_IN)
            middle_in = left_in + wide_in / 2
            below_in = top_in + names_in - 0.04
            canvas.text(middle_in, below_in, names[column], ha="center", va="bottom")
            axes = canvas.axes(left_in, top_in + names_in, wide_in, PANEL_IN)
            _draw_site(
                axes,
                {epoch: probs_of_sites[number] for epoch, probs_of_sites in probs.items()},
                ops[number],
            )
            _style_axes(axes, ticks=3)
            axes.set_yticks([0, 0.5, 1] if column == 0 else [])
            axes.yaxis.set_major_formatter("{x:.0%}")

    return Panel(names_in + PANEL_IN + TICKS_IN, draw)


def _draw_site(axes: Axes, probs: Mapping[int, Sequence[float]], ops: Sequence[str]) -> None:
    """Draw stacked areas; each epoch reaches halfway to its neighbours."""
    epochs = list(probs)
    between = [(left + right) / 2 for left, right in pairwise(epochs)]
    edges = [epochs[0] - 0.5, *between, epochs[-1] + 0.5]
    below = [0.0] * len(epochs)
    for number, op in enumerate(ops):
        above = [low + _number(probs[e][number]) for low, e in zip(below, epochs, strict=True)]
        axes.stairs(above, edges, baseline=below, fill=True, **op_style(op))
        below = above
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1))


def _number(value: Any) -> float:
    """A float; NaN for None and for values that are not finite."""
    return float(value) if value is not None and isfinite(value) else nan


def _style_axes(axes: Axes, *, ticks: int) -> None:
    """Integer ticks on the axis of epochs, and a thin frame."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=SMALL_PT, color=FAINT, labelcolor=INK)
    axes.spines[:].set_color(FAINT)


def _curves(history: Sequence[Mapping[str, Any]], budget_ms: float | None) -> list[Curve]:
    """Curves of latency, accuracy and entropy."""
    latencies_ms = _values(history, "latency_ms")
    known = [value for value in latencies_ms if isfinite(value)]
    notes = [f"ends at {ms_text(known[-1])} ms"] if known else []
    notes += [f"dashed: budget {ms_text(budget_ms)} ms"] if budget_ms is not None else []
    top1 = tuple(100 * value for value in _values(history, "top1"))
    return [
        Curve("expected latency, ms", "; ".join(notes), latencies_ms, budget_ms),
        Curve("top-1, %", "of the training batches", top1),
        Curve(
            "entropy, nats", "of the probabilities, mean over sites", _values(history, "entropy")
        ),
    ]


def _values(history: Sequence[Mapping[str, Any]], name: str) -> tuple[float, ...]:
    return tuple(_number(entry.get(name)) for entry in history)


def _phases_key(history: Sequence[Mapping[str, Any]]) -> Panel:
    phases = dict.fromkeys(entry["phase"] for entry in history)
    looks = {_look(phase)[0]: {"facecolor": _look(phase)[2]} for phase in phases}
    return key("by epoch:", looks)


def _look(phase: str) -> tuple[str, str, str]:
    """Legend entry, marker and colour of a phase."""
    return PHASES.get(phase, (phase, *OTHER_PHASE))


def _curves_panel(history: Sequence[Mapping[str, Any]], curves: Sequence[Curve]) -> Panel:
    """Panel of curves side by side."""
    step_in = (WIDTH_IN - MARGIN_IN) / len(curves)
    wide_in = step_in - LEFT_IN
    notes = [wrapped(curve.note, wide_in, SMALL_PT) for curve in curves]
    notes_in = max(text_height_in(note, SMALL_PT) for note in notes)
    title_in = text_height_in("", TEXT_PT)

    def draw(canvas: Canvas, top_in: float) -> None:
        for number, (curve, note) in enumerate(zip(curves, notes, strict=True)):
            left_in = LEFT_IN + number * step_in
            canvas.text(left_in, top_in, curve.title, fontweight="bold")
            canvas.text(left_in, top_in + title_in, note, fontsize=SMALL_PT)
            begin_in = top_in + title_in + notes_in + 0.08
            _draw_curve(canvas.axes(left_in, begin_in, wide_in, CURVE_IN), history, curve)
            below_in = begin_in + CURVE_IN + TICKS_IN - 0.07
            canvas.text(left_in + wide_in / 2, below_in, "epoch", ha="center", fontsize=SMALL_PT)

    return Panel(title_in + notes_in + 0.08 + CURVE_IN + TICKS_IN + 0.2, draw)


def _draw_curve(axes: Axes, history: Sequence[Mapping[str, Any]], curve: Curve) -> None:
    """Draw a line for each phase; epochs of the warm-up are shaded."""
    epochs = _epochs(history)
    for phase in dict.fromkeys(entry["phase"] for entry in history):
        own = [i for i, entry in enumerate(history) if entry["phase"] == phase]
        x, y = [epochs[i] for i in own], [curve.values[i] for i in own]
        _, marker, colour = _look(phase)
        size = 3 if len(history) < MANY else 2
        axes.plot(x, y, color=colour, marker=marker, markersize=size, linewidth=1.4)
        if phase == "warmup":
            axes.axvspan(x[0] - 0.5, x[-1] + 0.5, color=SHADE, linewidth=0, zorder=0)
    if curve.line is not None:
        axes.axhline(curve.line, color=INK, linewidth=1.1, linestyle="--")
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    _style_axes(axes, ticks=6)
    if not any(map(isfinite, curve.values)):
        _mark_unknown(axes)


def _mark_unknown(axes: Axes) -> None:
    axes.set_yticks([])
    middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(
        0.5, 0.5, "not known", color=INK, backgroundcolor=BACKGROUND, fontsize=TEXT_PT, **middle
    )


def _epochs(history: Sequence[Mapping[str, Any]]) -> list[int]:
    """Position of each history entry: its epoch, or its index if each phase counts from 0."""
    epochs = [int(entry["epoch"]) for entry in history]
    return epochs if len(set(epochs)) == len(epochs) else list(range(len(epochs)))
