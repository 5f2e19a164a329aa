"""Figure of the networks of a synthetic sweep."""

from __future__ import annotations

import io
from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from nas_core.architecture import Architecture
from nas_core.space import MOBILE_OPS, SearchSpace, proxyless_imagenet
from orchestration.reports.figures.network import FIXED_COLOUR, KERNEL_COLOURS
from orchestration.reports.figures.networks import networks_figure, networks_png
from tests.support.figures import assert_legible, drawn_texts, words_of
from tests.support.job_folder import (
    OPS,
    SPACE,
    baseline_result,
    latency_table,
    pixel1_result,
    result,
)
from tests.support.latency_tables import by_kernel, table_of

TABLES = {"table0": latency_table().to_dict()}
REFERENCE = result("mobile-reference")
SEARCH = result("mobile-0.31ms")


def drawn(*results: dict[str, Any], tables: dict[str, Any] | None = None) -> Figure:
    return networks_figure(results, TABLES if tables is None else tables, title="small sweep")


def blocks(figure: Figure, row: int = 0) -> list[FancyBboxPatch]:
    return [patch for patch in figure.axes[row].patches if isinstance(patch, FancyBboxPatch)]


def of_ops(space: SearchSpace, ops: tuple[str, ...], **more: Any) -> dict[str, Any]:
    chosen = tuple(ops[i % len(ops)] for i in range(len(space.sites)))
    fitting = [
        op if op in site.ops else site.ops[0] for site, op in zip(space.sites, chosen, strict=True)
    ]
    network = Architecture(space, tuple(fitting))
    return result("mobile-0.31ms", architecture=network.to_dict(), **more)


def test_a_row_says_target_budget_latency_and_accuracy() -> None:
    words = words_of(
        drawn(REFERENCE, SEARCH, pixel1_result("pixel1-80ms", budget=80.0, budget_ms=80.0))
    )
    assert "mobile, reference: 0.380 ms measured, top-1 98.5 %" in words
    assert "mobile, budget 80% (0.310 ms): 0.312 ms measured, top-1 98.1 %" in words
    assert "pixel1, budget 80.00 ms: 0.309 ms by the table, top-1 98.1 %" in words


def test_a_row_says_only_what_is_known() -> None:
    given = result("mobile-ours", kind="given", budget=None, budget_ms=None, top1=None)
    seeded = result("mobile-0.3ms-seed2", seed=2, measured_ms=None, table_ms=None, top1=None)
    words = words_of(drawn(given, seeded))
    assert "mobile, ours: 0.312 ms measured" in words
    assert "mobile, budget 80% (0.310 ms), seed 2" in words


def test_a_control_says_of_how_many_it_is_the_best() -> None:
    control = result("mobile-random-0.31ms", kind="random", random={"networks": 3})
    assert any(
        "best of 3 random networks for 80% (0.310 ms)" in item for item in words_of(drawn(control))
    )


def test_networks_of_a_target_stand_together_below_their_hardware() -> None:
    other = {"target": "cpu", "hardware": "cpu (ONNX Runtime)"}
    words = words_of(drawn(SEARCH, result("cpu-1", **other), result("mobile-2", budget="60%")))
    begins = [item for item in words if item.startswith(("mobile", "cpu"))]
    assert [item.split(":")[0] for item in begins] == [
        *("mobile on host x86-64 (XNNPACK)", "mobile, budget 80% (0.310 ms)"),
        *("mobile, budget 60% (0.310 ms)", "cpu (ONNX Runtime)", "cpu, budget 80% (0.310 ms)"),
    ]


def test_colour_is_the_kernel_height_the_expansion_and_a_skip_a_gap() -> None:
    actual = blocks(drawn(SEARCH))
    colours = [to_hex(block.get_facecolor()).upper() for block in actual]
    three, five, seven = (KERNEL_COLOURS[kernel] for kernel in (3, 5, 7))
    assert colours == [FIXED_COLOUR, three, five, three, seven, three, FIXED_COLOUR]
    assert [block.get_height() for block in actual] == [0.4, 0.5, 0.5, 1.0, 0.5, 0.5, 0.4]
    assert "skip" in words_of(drawn(SEARCH))


def test_equal_sites_stand_below_each_other() -> None:
    figure = drawn(REFERENCE, SEARCH)
    above, below = ([block.get_x() for block in blocks(figure, row)] for row in (0, 1))
    assert len(above) == len(SPACE.sites) + 2
    assert below == [x for i, x in enumerate(above) if i != 1 + OPS.index("skip")]


def test_shares_are_those_of_the_table() -> None:
    # Stem and head take 0.01 ms, the sites 0.03, 0.05, 0.03, 0, 0.07 and 0.03 ms: 0.23 together.
    figure = drawn(SEARCH, tables={"table0": table_of(SPACE, by_kernel).to_dict()})
    shares = [text.get_text() for text in figure.axes[0].texts if "%" in text.get_text()]
    assert shares == ["4 %", "13 %", "22 %", "13 %", "30 %", "13 %", "4 %"]


def test_a_network_that_no_table_covers_has_no_shares() -> None:
    assert not [t for t in drawn(SEARCH, tables={}).axes[0].texts if "%" in t.get_text()]
    uncovered = {**SEARCH, "table_ms": None}
    assert not [t for t in drawn(uncovered).axes[0].texts if "%" in t.get_text()]
    assert "share of latency" not in words_of(drawn(uncovered))


def test_networks_without_sites_are_left_out() -> None:
    figure = drawn(SEARCH, baseline_result("mobilenet_v2_0.35"))
    assert len(figure.axes) == 1
    with pytest.raises(ValueError, match="'small sweep' has no network of sites"):
        drawn(baseline_result("mobilenet_v2_0.35"))


@pytest.mark.parametrize(
    "count", [1, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (12, 14))]
)
def test_every_network_has_a_row_and_more_make_the_picture_taller(count: int) -> None:
    figure = drawn(*[SEARCH] * count)
    assert len(figure.axes) == count
    assert figure.get_figheight() == pytest.approx(1.7 + 1.41 * count, abs=0.2)
    assert figure.get_figwidth() == 10.5


LONG = {"hardware": "a board with a long name " * 5, "budget_ms": None, "kind": "given"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "results",
    [
        [SEARCH],
        [REFERENCE, SEARCH, pixel1_result("pixel1-80ms")] * 4,
        [result("mobile-" + "a_long_name_" * 12, **LONG)],
    ],
)
def test_no_text_of_small_networks_meets_another(results: list[dict[str, Any]]) -> None:
    assert_legible(drawn(*results))


@pytest.mark.slow
def test_no_text_of_the_published_space_meets_another() -> None:
    space = proxyless_imagenet(ops=("mbconv_k7_e3_hswish", "mbconv_k5_e6_se", *MOBILE_OPS))
    tables = {"table0": table_of(space, by_kernel).to_dict()}
    rows = [of_ops(space, ops) for ops in (MOBILE_OPS, space.sites[0].ops, space.sites[1].ops)]
    figure = drawn(*rows, tables=tables)
    assert figure.get_figwidth() == 10.5
    assert_legible(figure)


def test_words_of_a_block_stay_in_it() -> None:
    space = proxyless_imagenet(ops=("mbconv_k7_e3_hswish", "sepconv_k5", *MOBILE_OPS))
    figure = drawn(of_ops(space, ("mbconv_k7_e3_hswish", "sepconv_k5")), tables={})
    words = [t for t in drawn_texts(figure) if t.get_text() in ("7x7\ne3 hs", "5x5\nsep")]
    boxes = [block.get_window_extent() for block in blocks(figure)[1:-1]]
    assert len(words) == len(boxes) == 21
    for text, box in zip(words, boxes, strict=True):
        own = text.get_window_extent()
        assert box.x0 < own.x0 < own.x1 < box.x1
        assert box.y0 < own.y0 < own.y1 < box.y1


def test_the_picture_is_an_opaque_png_and_the_same_twice() -> None:
    data = networks_png([SEARCH], TABLES, title="small sweep")
    assert data == networks_png([SEARCH], TABLES, title="small sweep")
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert image.width == 1680
        assert image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
