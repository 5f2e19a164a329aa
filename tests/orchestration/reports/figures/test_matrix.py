"""Cross-target figures: texts, frames and shades."""

from __future__ import annotations

import io
from typing import Any

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from orchestration.reports.cross_target import Matrix, Specialized
from orchestration.reports.figures.layout import INK
from orchestration.reports.figures.matrix import OTHERS, matrix_figure, matrix_png, shade
from tests.support.figures import assert_legible, drawn_texts, words_of


def network(name: str, asked: str | None, own: str, top1: float | None, **ms: Any) -> Specialized:
    return Specialized(name=name, asked=asked, own=own, top1=top1, latencies_ms=ms)


Cells = list[tuple[Rectangle, list[str]]]
"""Rectangles with their texts, row by row."""

SMALL = Matrix(
    ("cpu", "mobile"),
    (
        network("cpu-0.2ms", "80%", "cpu", 0.9956, cpu=0.2, mobile=0.24),
        network("mobile-0.1ms", "80%", "mobile", None, cpu=0.3, mobile=0.16),
        network("mobile-9ms", "9.0", "mobile", 0.9, cpu=None, mobile=12.345),
    ),
)


@pytest.fixture(scope="module")
def small() -> Figure:
    return matrix_figure(SMALL, title="small sweep")


@pytest.fixture(scope="module")
def small_cells(small: Figure) -> Cells:
    return cells(small)


def many(targets: int, budgets: int) -> Matrix:
    names = tuple(f"board {number} with a long name (INT8)" for number in range(targets))
    networks = [
        network(
            f"{own}-{budget}_percent-of_the_reference",
            f"{budget}%",
            own,
            0.7,
            **{name: 100.0 + 7 * abs(i - j) + budget for j, name in enumerate(names)},
        )
        for budget in range(60, 60 + budgets)
        for i, own in enumerate(names)
    ]
    return Matrix(names, tuple(networks))


def cells(figure: Figure) -> Cells:
    boxes = [
        artist
        for artist in figure.artists
        if isinstance(artist, Rectangle) and artist.get_height() > 0.1
    ]
    texts = drawn_texts(figure)
    return [(box, [text.get_text() for text in texts if _is_within(text, box)]) for box in boxes]


def _is_within(text: Any, box: Rectangle) -> bool:
    own, around = text.get_window_extent(), box.get_window_extent()
    return bool(around.x0 <= own.x0 and own.x1 <= around.x1 and around.y0 <= own.y0 < around.y1)


def test_cells_have_milliseconds_and_their_ratio_to_the_best_of_their_group(
    small_cells: Cells,
) -> None:
    assert [words for _, words in small_cells] == [
        *(["0.200", "best", "own"], ["0.240", "1.50 times"]),
        *(["0.300", "1.50 times"], ["0.160", "best", "own"]),
        *(["-"], ["12.35", "own"]),  # nothing to compare with
    ]


def test_the_best_has_a_bold_frame_and_bold_words(small: Figure, small_cells: Cells) -> None:
    widths = [box.get_linewidth() for box, _ in small_cells]
    assert widths == [2.5, 0.6, 0.6, 2.5, 0.6, 0.6]
    bold = [t.get_text() for t in drawn_texts(small) if t.get_fontweight() == "bold"]
    assert {"0.200", "0.160"} <= set(bold)
    assert not {"0.240", "0.300", "12.35"} & set(bold)


def test_names_accuracies_targets_and_groups_are_there(small: Figure) -> None:
    words = words_of(small)
    assert {"small sweep", "network", "top-1", "cpu", "mobile", "asked for 80%", OTHERS} <= set(
        words
    )
    assert {"cpu-0.2ms", "99.6 %", "mobile-0.1ms", "mobile-9ms", "90.0 %"} <= set(words)
    assert words.count("-") == 2  # an accuracy and a latency that are not known


def test_networks_that_all_differ_need_no_line_for_their_group() -> None:
    alone = Matrix(("cpu",), (network("cpu-1ms", "1.0", "cpu", 0.9, cpu=1.0),))
    assert OTHERS not in words_of(matrix_figure(alone, title="small"))


def test_equal_ratios_have_equal_shades_and_slower_is_darker(small_cells: Cells) -> None:
    shades = [_luminance(box.get_facecolor()[:3]) for box, _ in small_cells]
    best, slower = shades[0], shades[1]
    assert shades == pytest.approx([best, slower, slower, best, 1.0, 1.0])
    assert slower < best


@pytest.mark.parametrize("ratio", [1.0, 1.1, 1.5, 2.0, 2.7, 3.0])
def test_words_are_read_on_every_shade(ratio: float) -> None:
    # WCAG 2 asks for a contrast of 4.5.
    light, dark = _luminance(shade(ratio, 3.0)), _luminance(to_rgb(INK))
    assert (light + 0.05) / (dark + 0.05) > 4.5


def test_shades_get_darker_all_the_way() -> None:
    result = [_luminance(shade(1 + 0.1 * step, 3.0)) for step in range(21)]
    assert result == sorted(result, reverse=True)
    assert result[0] - result[-1] > 0.4


def _luminance(colour: Any) -> float:
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("targets", "budgets"),
    [
        (2, 2),
        *(pytest.param(*n, marks=pytest.mark.slow) for n in ((1, 1), (5, 3), (8, 1), (12, 1))),
    ],
)
def test_no_text_meets_another(targets: int, budgets: int) -> None:
    figure = matrix_figure(many(targets, budgets), title="many targets and a long title " * 4)
    assert_legible(figure)
    is_wide = targets > 7
    assert (figure.get_figwidth() > 10.51) == is_wide


@pytest.mark.slow
def test_every_word_of_a_cell_is_in_it() -> None:
    for _, words in cells(matrix_figure(many(8, 1), title="many")):
        assert words[1] == "best" or words[1].endswith("times")


@pytest.mark.slow
def test_the_picture_is_an_opaque_png_and_the_same_twice() -> None:
    data = matrix_png(SMALL, title="small")
    assert data == matrix_png(SMALL, title="small")
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert image.width == 1200
        assert image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
