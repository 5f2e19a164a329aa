"""Labels of points in a picture, each where it covers no other label and no point, if it can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestration.reports.figures.layout import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Right and up of the label from its point, in units of 1/72 inch; nearest and usual ones first.
PLACES: tuple[tuple[float, float, str, str], ...] = (
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
"""Half the side of the square that a point takes, and half the width of its bars."""
OUTSIDE = 5.0
"""How much worse it is to leave the panel, where neighbours and edges cut, than to cover."""
ROUNDS = 10
"""How often each label may move, at most: two could change places without end."""


@dataclass(frozen=True)
class LabelledPoint:
    """A point with the bars that show its spread; one without a label is only kept clear."""

    x: float
    y: float
    label: str
    x_spread: float = 0.0
    y_spread: float = 0.0


def write_labels(axes: Axes, spots: Sequence[LabelledPoint]) -> None:
    """Write labels beside their points.

    Args:
        axes: laid out already; limits and size must not change afterwards.
        spots: all points of the panel.
    """
    points = [box for spot in spots for box in _point_boxes(axes, spot)]
    labelled = [spot for spot in spots if spot.label]
    boxes = [[_label_box(axes, spot, place) for place in PLACES] for spot in labelled]
    for spot, number in zip(labelled, _best_places(axes, boxes, points), strict=True):
        _annotation(axes, spot, PLACES[number])


def _best_places(axes: Axes, boxes: Sequence[Sequence[Bbox]], points: Sequence[Bbox]) -> list[int]:
    """Which of its boxes each label takes: each goes where it covers least, until none moves."""
    taken: dict[int, int] = {}
    for _ in range(ROUNDS):
        before = dict(taken)
        for label, places in enumerate(boxes):
            others = [boxes[other][place] for other, place in taken.items() if other != label]
            costs = [_covered(axes, box, [*points, *others]) for box in places]
            taken[label] = costs.index(min(costs))
        if taken == before:
            break
    return [taken[label] for label in range(len(boxes))]


def _point_boxes(axes: Axes, spot: LabelledPoint) -> Iterator[Bbox]:
    """What a point and its bars cover, pixels."""
    from matplotlib.transforms import Bbox

    x, y, across, up = spot.x, spot.y, spot.x_spread, spot.y_spread
    for low, high, margin in (
        ((x, y), (x, y), POINT_PX),
        ((x - across, y), (x + across, y), BAR_PX),
        ((x, y - up), (x, y + up), BAR_PX),
    ):
        corners = axes.transData.transform([low, high])
        yield Bbox([corners[0] - margin, corners[1] + margin])


def _label_box(axes: Axes, spot: LabelledPoint, place: tuple[float, float, str, str]) -> Bbox:
    """What a label would cover, pixels."""
    label = _annotation(axes, spot, place)
    box = label.get_window_extent()
    label.remove()
    return box


def _annotation(
    axes: Axes, spot: LabelledPoint, place: tuple[float, float, str, str]
) -> Annotation:
    right, up, horizontal, vertical = place
    style: dict[str, Any] = {"ha": horizontal, "va": vertical, "fontsize": 8, "color": INK}
    style["bbox"] = {"facecolor": "white", "alpha": 0.75, "pad": 0.5, "edgecolor": "none"}
    at = (spot.x, spot.y)
    return axes.annotate(
        spot.label, at, xytext=(right, up), textcoords="offset points", zorder=2.5, **style
    )


def _covered(axes: Axes, box: Bbox, taken: Sequence[Bbox]) -> float:
    """Pixels of other things below a label, and, weighted, of itself outside of the panel."""
    from matplotlib.transforms import Bbox

    inside = Bbox.intersection(box, axes.bbox)
    outside = box.width * box.height - (0.0 if inside is None else inside.width * inside.height)
    parts = [part for other in taken if (part := Bbox.intersection(box, other)) is not None]
    return OUTSIDE * outside + sum(part.width * part.height for part in parts)
