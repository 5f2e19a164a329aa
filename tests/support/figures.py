"""Content of a figure: the texts drawn in it, and their positions."""

from __future__ import annotations

from itertools import combinations
from typing import Any
from unittest.mock import Mock, patch

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text


def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the drawing functions of a job's figures, for tests of which figures there are."""
    for place in (
        "matrix.matrix",
        "network.architecture",
        "networks.networks",
        "search.search",
        "sweep.sweep",
    ):
        monkeypatch.setattr(
            f"orchestration.reports.figures.{place}_png", Mock(return_value=b"blank")
        )


def drawn_texts(figure: Figure) -> list[Text]:
    """Texts that are drawn; excludes tick labels beyond the end of an axis."""
    texts: list[Text] = []
    draw = Text.draw

    def note(text: Text, renderer: Any, *args: Any, **more: Any) -> None:
        if text.get_visible() and text.get_text().strip():
            texts.append(text)
        draw(text, renderer, *args, **more)

    with patch.object(Text, "draw", note):
        figure.draw_without_rendering()
    return texts


def words_of(figure: Figure) -> list[str]:
    """The texts of a figure, with line breaks replaced by spaces."""
    return [text.get_text().replace("\n", " ") for text in drawn_texts(figure)]


def assert_legible(figure: Figure) -> None:
    """Assert that no text overlaps another or is cut off, and that none is smaller than 8 points.

    8 points on a figure 10.5 inches wide are 9 pixels when it is displayed 900 pixels wide.
    """
    texts = drawn_texts(figure)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    overlapping = [
        (a, b)
        for (a, combination), (b, other) in combinations(boxes, 2)
        if combination.overlaps(other)
    ]
    assert not overlapping
    whole = figure.bbox
    cut = [a for a, box in boxes if not (whole.x0 <= box.x0 and box.x1 <= whole.x1)]
    cut += [a for a, box in boxes if not (whole.y0 <= box.y0 and box.y1 <= whole.y1)]
    assert not cut
    assert min(text.get_fontsize() for text in texts) >= 8
