"""Label placement: each label goes where it covers the least of points and other labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.reports.figures.layout import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

Array = np.ndarray[Any, np.dtype[np.float64]]

# Offset of a label from its point (right, up; 1/72 inch) and its alignment, preferred ones first.
OFFSETS: tuple[tuple[float, float, str, str], ...] = (
    (0, 8, "center", "bottom"),
    (0, -8, "center", "top"),
    (9, 0, "left", "center"),
    (-9, 0, "right", "center"),
    (7, 7, "left", "bottom"),
    (-7, 7, "right", "bottom"),
    (7, -7, "left", "top"),
    (-7, -7, "right", "top"),
    (0, 20, "center", "bottom"),
    (0, -20, "center", "top"),
    (7, 18, "left", "bottom"),
    (-7, 18, "right", "bottom"),
    (7, -18, "left", "top"),
    (-7, -18, "right", "top"),
)
POINT_PX, BAR_PX = 8.0, 3.0
"""Half the side of the square covered by a point, and half the width of its error bars."""
OUTSIDE = 5.0
"""Weight of label area outside the panel, relative to area that covers something."""
ROUNDS = 10
"""Limit on the rounds of placement: two labels could swap positions forever."""


@dataclass(frozen=True)
class LabelledPoint:
    """A point with error bars. Labels also avoid a point whose own label is empty."""

    x: float
    y: float
    label: str
    x_spread: float = 0.0
    y_spread: float = 0.0


def write_labels(axes: Axes, points: Sequence[LabelledPoint]) -> None:
    """Write labels beside their points.

    Args:
        axes: laid out already; limits and size must not change afterwards.
        points: all points of the panel.
    """
    occupied = [box for point in points for box in _point_boxes(axes, point)]
    labelled = [point for point in points if point.label]
    boxes = [list(_label_boxes(axes, point)) for point in labelled]
    for point, index in zip(labelled, _best_boxes(axes, boxes, occupied), strict=True):
        _annotation(axes, point, OFFSETS[index])


def _best_boxes(axes: Axes, boxes: Sequence[Sequence[Bbox]], points: Sequence[Bbox]) -> list[int]:
    """Index of the box that each label takes: every label minimizes its cost until none moves.

    The cost of a box is the area of points and labels that it covers, plus its weighted area
    outside the panel.
    """
    options, covered = [_corners(label) for label in boxes], _corners(points)
    panel = _corners([axes.bbox])
    fixed = [
        OUTSIDE * (_areas(label) - _overlaps(label, panel)) + _overlaps(label, covered)
        for label in options
    ]
    taken: dict[int, int] = {}
    for _ in range(ROUNDS):
        before = dict(taken)
        for label, own in enumerate(options):
            others = [options[other][index] for other, index in taken.items() if other != label]
            costs = fixed[label] + _overlaps(own, np.reshape(others, (-1, 4)))
            taken[label] = int(costs.argmin())
        if taken == before:
            break
    return [taken[label] for label in range(len(boxes))]


def _corners(boxes: Sequence[Any]) -> Array:
    """Boxes as an array of shape (N, 4): left, lower, right and upper edge."""
    edges = [(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes]
    return np.array(edges, dtype=float).reshape(-1, 4)


def _areas(boxes: Array) -> Array:
    """Area of each box, shape (N,)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _overlaps(boxes: Array, others: Array) -> Array:
    """Sum over `others` of the area that each of the boxes has in common with them, shape (N,)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sums: Array = np.clip(high - low, 0.0, None).prod(axis=2).sum(axis=1)
    return sums


def _point_boxes(axes: Axes, point: LabelledPoint) -> Iterator[Bbox]:
    """Areas covered by a point and its error bars, pixels."""
    from matplotlib.transforms import Bbox

    x, y, across, up = point.x, point.y, point.x_spread, point.y_spread
    for low, high, margin in (
        ((x, y), (x, y), POINT_PX),
        ((x - across, y), (x + across, y), BAR_PX),
        ((x, y - up), (x, y + up), BAR_PX),
    ):
        corners = axes.transData.transform([low, high])
        yield Bbox([corners[0] - margin, corners[1] + margin])


def _label_boxes(axes: Axes, point: LabelledPoint) -> Iterator[Bbox]:
    """Area that a label would cover at each of the offsets, pixels."""
    label = _annotation(axes, point, OFFSETS[0])
    for right, up, horizontal, vertical in OFFSETS:
        label.xyann = (right, up)
        label.set(ha=horizontal, va=vertical)
        yield label.get_window_extent()
    label.remove()


def _annotation(
    axes: Axes, point: LabelledPoint, offset: tuple[float, float, str, str]
) -> Annotation:
    right, up, horizontal, vertical = offset
    style: dict[str, Any] = {"ha": horizontal, "va": vertical, "fontsize": 8, "color": INK}
    style["bbox"] = {"facecolor": "white", "alpha": 0.75, "pad": 0.5, "edgecolor": "none"}
    position = (point.x, point.y)
    return axes.annotate(
        point.label, position, xytext=(right, up), textcoords="offset points", zorder=2.5, **style
    )
