"""What a picture shows: the text that is drawn in it, and where."""

from __future__ import annotations

from itertools import combinations
from typing import Any
from unittest.mock import patch

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def drawn_texts(figure: Figure) -> list[Text]:
    """Every text that is drawn; labels of ticks beyond the end of an axis are not."""
    found: list[Text] = []
    draw = Text.draw

    def note(text: Text, renderer: Any, *words: Any, **more: Any) -> None:
        if text.get_visible() and text.get_text().strip():
            found.append(text)
        draw(text, renderer, *words, **more)

    with patch.object(Text, "draw", note):
        FigureCanvasAgg(figure).draw()
    return found


def words_of(figure: Figure) -> list[str]:
    """What is written in a picture, line breaks as spaces."""
    return [text.get_text().replace("\n", " ") for text in drawn_texts(figure)]


def assert_legible(figure: Figure) -> None:
    """No text meets another or is cut, and none is smaller than 8 points on a card of 10.5 inches,
    which is 9 pixels where it is shown 900 pixels wide."""
    texts = drawn_texts(figure)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    met = [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)]
    assert not met
    whole = figure.bbox
    cut = [a for a, box in boxes if not (whole.x0 <= box.x0 and box.x1 <= whole.x1)]
    cut += [a for a, box in boxes if not (whole.y0 <= box.y0 and box.y1 <= whole.y1)]
    assert not cut
    assert min(text.get_fontsize() for text in texts) >= 8
