"""Figure of the accuracy of a latency table: predicted against measured latency of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas_core.calibration import MeasuredNetwork
from nas_core.latency import LatencyTable
from orchestration.reports.figures.layout import DPI, FAINT, INK, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE_IN = 6.0
FITTED, CHECKED, OTHER = "#8A949E", "#0072B2", "#D55E00"
FOOT, NAME_HEIGHT = 0.02, 0.3
"""Fractions of the axes' height: where a name begins, and how far it reaches at most."""
CORNER: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 7, "color": OTHER}


def predicted_ms(table: LatencyTable, network: MeasuredNetwork) -> float | None:
    """Latency of a network by the table; None if it is not a member of the space."""
    if network.parts_ms is None:
        return None
    return table.scale * network.parts_ms + table.offset_ms


def calibration_png(table: LatencyTable) -> bytes:
    """Predicted against measured latency of whole networks, on logarithmic axes.

    Networks used in the fit are hollow markers, held-out networks are filled ones. Named networks
    (those of a job, and baselines) are orange: a line at the measured latency, and a marker at the
    prediction of the table.

    Raises:
        ValueError: the table was not calibrated.
    """
    return png(calibration_figure(table))


def calibration_figure(table: LatencyTable) -> Figure:
    """The figure before it is encoded; see `calibration_png`."""
    known = table.calibration
    if known is None:
        raise ValueError(f"the table for '{table.hardware}' was not calibrated on whole networks")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIDE_IN, SIDE_IN + 0.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _frame(axes, table)
    _points(axes, table, known.fitted, FITTED, "fitted", filled=False)
    _points(axes, table, known.checked, CHECKED, "not in the fit", filled=True)
    _others(axes, table, known.others)
    axes.set_xlabel("measured, ms")
    axes.set_ylabel("predicted by the table, ms")
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    axes.set_title(_title(table), fontsize=9, color=INK, loc="left")
    return figure


def _points(
    axes: Axes,
    table: LatencyTable,
    networks: tuple[MeasuredNetwork, ...],
    colour: str,
    label: str,
    *,
    filled: bool,
) -> None:
    pairs = [(network.measured_ms, predicted_ms(table, network)) for network in networks]
    known = [(x, y) for x, y in pairs if y is not None]
    axes.scatter(
        [x for x, _ in known],
        [y for _, y in known],
        s=26,
        facecolors=colour if filled else "none",
        edgecolors=colour,
        label=f"{label} ({len(known)})",
    )


def _others(axes: Axes, table: LatencyTable, others: tuple[MeasuredNetwork, ...]) -> None:
    """Lines at measured latencies. Networks beyond the axes are listed in the lower right corner.

    They do not widen the axes, which fit the networks of the calibration.
    """
    low, high = axes.get_xlim()
    within = [network for network in others if low < network.measured_ms < high]
    marked = [(network.measured_ms, predicted_ms(table, network)) for network in within]
    known = [(x, y) for x, y in marked if y is not None]
    if known:
        times, predicted = zip(*known, strict=True)
        label = f"named ({len(known)})"
        axes.scatter(times, predicted, s=40, marker="D", color=OTHER, label=label)
    for network, (x, y) in zip(within, marked, strict=True):
        axes.axvline(x, color=OTHER, linewidth=0.8, alpha=0.6)
        upright: dict[str, Any] = {"rotation": 90, **CORNER}
        foot = _foot(axes, x, y)
        axes.text(x, foot, network.name, transform=axes.get_xaxis_transform(), **upright)
    beyond = [
        f"{network.name} {network.measured_ms:.3g}" for network in others if network not in within
    ]
    if beyond:
        lines = "\n".join(["beyond, measured ms:", *beyond])
        axes.text(0.98, 0.02, lines, transform=axes.transAxes, **CORNER)


def _foot(axes: Axes, x: float, y: float | None) -> float:
    """Start of a name as a fraction of the height: the bottom, or above a marker that is there."""
    if y is None:
        return FOOT
    at = float(axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1])
    return at + 2 * FOOT if at < NAME_HEIGHT else FOOT


def _frame(axes: Axes, table: LatencyTable) -> None:
    """Logarithmic axes around the networks of the space, and the line of exact predictions."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    known = table.calibration
    assert known is not None, "checked before"
    pairs = [
        (network.measured_ms, predicted_ms(table, network))
        for network in (*known.fitted, *known.checked)
    ]
    times = [ms for pair in pairs for ms in pair if ms is not None]
    low, high = min(times) / 1.3, max(times) * 1.3
    axes.plot([low, high], [low, high], color=FAINT, linewidth=0.8, zorder=1)
    for scale, limit, axis in (
        (axes.set_xscale, axes.set_xlim, axes.xaxis),
        (axes.set_yscale, axes.set_ylim, axes.yaxis),
    ):
        scale("log")
        limit(low, high)
        axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_aspect("equal")
    axes.grid(color="#ECEEF0", linewidth=0.6)
    axes.set_axisbelow(True)


def _title(table: LatencyTable) -> str:
    space = f"{table.space.name}, {table.space.resolution} pixels"
    batch = table.device.get("batch_size", 1)
    heading = f"{table.hardware}, batch {batch}: {space}"
    errors = table.calibration.errors if table.calibration else None
    if errors is None:
        return heading
    return (
        f"{heading}\nmean error {errors.mape:.1%}, RMSE {errors.rmse_ms:.3g} ms, "
        f"Spearman {errors.spearman:.3f}, Kendall {errors.kendall:.3f}"
    )
