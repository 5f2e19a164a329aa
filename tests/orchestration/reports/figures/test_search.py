"""Figure of the course of a synthetic search."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from PIL import Image

from nas_core.space import MOBILE_OPS, SearchSpace, proxyless_imagenet
from orchestration.reports.figures.colours import op_style
from orchestration.reports.figures.search import SearchTrace, search_figure, search_png
from tests.support.figures import assert_legible, words_of
from tests.support.job_folder import SPACE, result
from tests.support.tiers import slow

HISTORY = result("mobile-0.31ms")["search_history"]
"""Warm-up in epochs 0 and 1, search in 2 and 3: top-1 20 % per epoch, latency .36 and .34 ms."""
OPS_13 = (*MOBILE_OPS[:-1], *(f"{op}_se" for op in MOBILE_OPS[:-1]), "skip")


def names_of(space: SearchSpace) -> tuple[list[str], list[list[str]]]:
    return [site.name for site in space.sites], [list(site.ops) for site in space.sites]


def probs_of(space: SearchSpace, epochs: range) -> list[dict[str, Any]]:
    """The first op gets more likely from epoch to epoch, all others are equally likely."""

    def row(count: int, epoch: int) -> list[float]:
        first = 0.25 + 0.5 * (epoch - epochs.start) / len(epochs)
        return [first, *[(1 - first) / (count - 1)] * (count - 1)]

    return [
        {"epoch": epoch, "probs": [row(len(site.ops), epoch) for site in space.sites]}
        for epoch in epochs
    ]


def drawn(
    history: list[dict[str, Any]] = HISTORY,
    space: SearchSpace = SPACE,
    epochs: range = range(2, 4),
    budget_ms: float | None = 0.31,
) -> Figure:
    probs = probs_of(space, epochs)
    return search_figure(SearchTrace("mobile-0.31ms", history, probs, *names_of(space), budget_ms))


@pytest.fixture(scope="module")
def figure() -> Figure:
    """A search with all that is known of one, for tests that only read."""
    return drawn()


@pytest.fixture(scope="module")
def words(figure: Figure) -> list[str]:
    return words_of(figure)


def areas(axes: Axes) -> list[StepPatch]:
    return [patch for patch in axes.patches if isinstance(patch, StepPatch)]


def lines(axes: Axes) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_a_site_has_an_area_for_each_op_as_high_as_its_probability(figure: Figure) -> None:
    stage1 = areas(figure.axes[1])
    assert len(stage1) == len(SPACE.sites[1].ops) == 7
    tops, _, bases = stage1[0].get_data()
    assert list(tops) == [0.25, 0.5]
    assert list(bases) == [0, 0]
    assert list(stage1[-1].get_data().values) == pytest.approx([1, 1])  # all together


def test_an_op_has_the_same_colour_at_every_site_and_in_the_key(figure: Figure) -> None:
    for axes, site in zip(figure.axes, SPACE.sites, strict=False):
        colours = [to_hex(area.get_facecolor()).upper() for area in areas(axes)]
        assert colours == [op_style(op)["facecolor"] for op in site.ops]
    keys = [to_hex(box.get_facecolor()).upper() for box in figure.artists][:7]
    assert keys == [op_style(op)["facecolor"] for op in MOBILE_OPS]


def test_sites_ops_and_curves_are_named_once(words: list[str]) -> None:
    once = [*(site.name for site in SPACE.sites), "3x3 e3", "7x7 e6", "skip", "mobile-0.31ms"]
    once += ["expected latency, ms", "top-1, %", "entropy, nats", "warm-up (shaded)", "search"]
    assert [words.count(item) for item in once] == [1] * len(once)


def test_latency_comes_with_its_budget_as_a_line(figure: Figure, words: list[str]) -> None:
    _, searched, budget = lines(figure.axes[-3])
    assert searched == ([2, 3], pytest.approx([0.36, 0.34]))
    assert budget[1] == [0.31, 0.31]
    assert "ends at 0.340 ms; dashed: budget 0.310 ms" in words


def test_without_a_budget_there_is_no_line() -> None:
    figure = drawn(budget_ms=None)
    assert len(figure.axes[-3].lines) == 2
    assert "ends at 0.340 ms" in words_of(figure)


def test_accuracies_of_both_phases_are_lines_of_their_own(figure: Figure) -> None:
    assert lines(figure.axes[-2]) == [
        ([0, 1], pytest.approx([0, 20])),
        ([2, 3], pytest.approx([40, 60])),
    ]


def test_entropy_has_a_line_for_each_phase(figure: Figure) -> None:
    assert lines(figure.axes[-1]) == [([0, 1], [1.9, 1.9]), ([2, 3], [1.9, 1.9])]


def test_phases_that_both_count_from_0_stand_behind_each_other() -> None:
    again = [{**entry, "epoch": entry["epoch"] % 2} for entry in HISTORY]
    assert [x for x, _ in lines(drawn(again).axes[-2])] == [[0, 1], [2, 3]]


def test_without_probabilities_there_are_the_curves() -> None:
    figure = search_figure(SearchTrace("mobile-0.31ms", HISTORY, budget_ms=0.31))
    assert len(figure.axes) == 3
    assert not [item for item in words_of(figure) if "3x3" in item or "stage" in item]
    assert_legible(figure)


def test_without_a_history_there_are_the_probabilities() -> None:
    assert len(drawn([]).axes) == len(SPACE.sites)


def test_one_epoch_is_enough() -> None:
    figure = drawn(HISTORY[-1:], epochs=range(3, 4))
    assert figure.axes[0].get_xlim() == figure.axes[-1].get_xlim() == (2.5, 3.5)
    assert_legible(figure)


@pytest.mark.parametrize("missing", [None, *slow(math.nan, math.inf)])
def test_what_is_not_known_is_left_out(missing: float | None) -> None:
    broken = [{**entry, "loss": missing, "entropy": missing} for entry in HISTORY]
    broken[2] |= {"top1": missing, "latency_ms": missing}
    figure = drawn(broken)
    assert math.isnan(lines(figure.axes[-2])[1][1][0])
    assert lines(figure.axes[-2])[1][1][1] == pytest.approx(60)
    assert "not known" in words_of(figure)
    assert_legible(figure)


def test_of_an_epoch_that_is_there_twice_the_last_one_counts() -> None:
    twice = [*probs_of(SPACE, range(2, 4)), *probs_of(SPACE, range(3, 5))]
    figure = search_figure(SearchTrace("resumed", HISTORY, twice, *names_of(SPACE), 0.31))
    tops, edges, _ = areas(figure.axes[0])[0].get_data()
    assert list(edges) == [1.5, 2.5, 3.5, 4.5]
    assert list(tops) == [0.25, 0.25, 0.5]


def test_probabilities_of_other_sites_are_refused() -> None:
    sites, ops = names_of(SPACE)
    probs = probs_of(SPACE, range(2, 4))
    with pytest.raises(ValueError, match="5 lists of ops for 6 sites; expected one for each"):
        search_figure(SearchTrace("small", HISTORY, probs, sites, ops[:-1], 0.31))
    with pytest.raises(ValueError, match=r"probs of epoch 2 are of \[6, 7, 6, 7, 6, 7\] ops"):
        search_figure(SearchTrace("small", HISTORY, probs, sites[:-1], ops[:-1], 0.31))


def test_a_search_of_no_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match="'small' has no epochs of a search to draw"):
        search_figure(SearchTrace("small", []))


@pytest.mark.parametrize(
    ("space", "epochs"),
    [
        (SPACE, range(2, 4)),
        pytest.param(proxyless_imagenet(ops=OPS_13), range(40, 160), marks=pytest.mark.slow),
        pytest.param(proxyless_imagenet(), range(1000, 1300), marks=pytest.mark.slow),
    ],
)
def test_no_text_meets_another(space: SearchSpace, epochs: range) -> None:
    warm = {"phase": "warmup", "latency_ms": None, "entropy": 1.9}
    history = [{"epoch": epoch, "top1": 0.001 * epoch, **warm} for epoch in range(epochs.start)]
    history += [
        {"phase": "search", "epoch": epoch, "top1": 0.9, "entropy": 0.5, "latency_ms": 1e4 / epoch}
        for epoch in epochs
    ]
    figure = drawn(history, space, epochs)
    assert len(figure.axes) == len(space.sites) + 3
    assert_legible(figure)


@pytest.mark.slow
def test_the_picture_is_an_opaque_png_and_the_same_twice() -> None:
    space = replace(SPACE, sites=SPACE.sites[:2])
    trace = SearchTrace("small", HISTORY, probs_of(space, range(2, 4)), *names_of(space), 0.31)
    data = search_png(trace)
    assert data == search_png(trace)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert image.width == 1680
        assert image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
