"""Layout of figures: text measurement, wrapping, and stacking of panels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.reports.figures.layout import (
    Panel,
    heading,
    key,
    ms_text,
    stack_panels,
    text_width_in,
    wrapped,
)
from tests.support.figures import assert_legible, drawn_texts, words_of


def test_text_is_as_wide_as_it_was_measured() -> None:
    figure = stack_panels([heading("mobile on host x86-64 (XNNPACK)", "")])
    (text,) = drawn_texts(figure)
    measured_in = text_width_in(text.get_text(), 13.0, bold=True)
    assert text.get_window_extent().width / figure.dpi == pytest.approx(measured_in, abs=0.03)


@given(st.text("ab _-./W", min_size=1, max_size=60), st.floats(0.3, 3.0))
def test_lines_fit_and_lose_no_letter(words: str, room_in: float) -> None:
    lines = wrapped(words, room_in, 9.5).split("\n")
    assert all(text_width_in(line, 9.5) <= room_in for line in lines)
    assert "".join(lines).replace(" ", "") == words.replace(" ", "")


def test_text_is_broken_between_words_where_it_can_be() -> None:
    assert wrapped("asked for 80%", 0.6, 9.5) == "asked\nfor 80%"
    assert wrapped("mobile-seed1", 0.6, 9.5) == "mobile-\nseed1"
    assert wrapped("stage1.0", 0.4, 8.0) == "stage1\n.0"
    assert wrapped("short", 3.0, 9.5) == "short"


def test_bands_stand_below_each_other_and_make_the_height() -> None:
    places: list[float] = []
    panels = [
        Panel(height_in, lambda _, top_in: places.append(top_in)) for height_in in (0.5, 1.25)
    ]
    figure = stack_panels(panels)
    assert places == pytest.approx([0.15, 0.65])
    assert figure.get_size_inches() == pytest.approx([10.5, 2.05])


def test_a_key_goes_on_in_the_next_line() -> None:
    few = key("colours:", {"one": {}, "two": {}})
    many = key("colours:", {f"a name of some length {n}": {"facecolor": "C0"} for n in range(20)})
    assert many.height_in > 3 * few.height_in
    figure = stack_panels([heading("title", "notes " * 60), many])
    assert_legible(figure)
    assert "a name of some length 19" in words_of(figure)


def test_signs_of_formulas_are_only_text() -> None:
    assert "costs $1 and $2" in words_of(stack_panels([heading("costs $1 and $2", "")]))


@pytest.mark.parametrize(
    ("ms", "text"), [(0.12456, "0.125"), (9.9, "9.900"), (12.345, "12.35"), (123.44, "123.4")]
)
def test_milliseconds_have_the_digits_that_tell_networks_apart(ms: float, text: str) -> None:
    assert ms_text(ms) == text
