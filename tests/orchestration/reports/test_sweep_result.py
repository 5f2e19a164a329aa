"""Results of a synthetic sweep, against values computed by hand."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nas_core.baselines.registry import model_from_dict
from orchestration.reports.figures.labels import _best_boxes
from orchestration.reports.figures.sweep import sweep_figure
from orchestration.reports.results import CaseResult, JobResult, pareto_front
from orchestration.reports.sweep_result import COLUMNS, SweepResult
from tests.support.job_folder import OPS, baseline_result, pixel1_result, result
from tests.support.tiers import slow

FIELDS = (
    *("kind", "target", "hardware", "budget_ms", "table_ms", "measured_ms", "top1", "top5"),
    *("params", "macs", "search_s"),
)


def case_result(values: dict[str, Any]) -> CaseResult:
    return CaseResult(
        name=values["case"],
        **{name: values[name] for name in FIELDS},
        architecture=model_from_dict(values["architecture"]),
        folder=f"/storage/cases/{values['case']}",
        values=values,
    )


def sweep_of(*results: dict[str, Any], failed: dict[str, str] | None = None) -> SweepResult:
    return SweepResult(JobResult("small", tuple(map(case_result, results)), failed or {}, ("a",)))


def searched(budget_ms: float, measured_ms: float | None, top1: float | None, **more: Any) -> Any:
    facts = {"budget": budget_ms, "budget_ms": budget_ms, "measured_ms": measured_ms, "top1": top1}
    name = f"mobile-{budget_ms:.4g}ms"
    if more.get("seed"):
        name += f"-seed{more['seed']}"
    return result(name, **(facts | more))


REFERENCE = result("mobile-reference", measured_ms=0.38, top1=0.985)
WIDTH = baseline_result("mobilenet_v2_0.35", measured_ms=0.33, top1=0.97)
SWEEP = sweep_of(
    REFERENCE,
    searched(0.2, 0.196, 0.960),
    searched(0.2, 0.204, 0.968, seed=1, warmup_s=12.5),
    searched(0.3, 0.310, 0.980),
    searched(0.3, 0.290, 0.976, seed=1),
    WIDTH,
)


def test_a_sweep_hands_on_what_its_job_hands_back() -> None:
    sweep = sweep_of(REFERENCE, failed={"mobile-9ms": "out of memory"})
    assert [case.name for case in sweep.cases] == ["mobile-reference"]
    assert sweep.failed == {"mobile-9ms": "out of memory"}
    assert sweep.links == ("a",)


def test_the_frame_has_a_row_for_every_network() -> None:
    frame = SWEEP.to_frame()
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame["network"]) == [case.name for case in SWEEP.cases]
    row = frame.loc[2]
    assert row["network"] == "mobile-0.2ms-seed1"
    assert (row["seed"], row["budget"], row["warmup_s"], row["retrain_s"]) == (1, 0.2, 12.5, 40.1)
    assert row["folder"] == "/storage/cases/mobile-0.2ms-seed1"


def test_the_frame_tells_ops_of_a_member_of_the_space_and_the_name_of_a_baseline() -> None:
    architectures = list(SWEEP.to_frame()["architecture"])
    assert architectures[1] == list(OPS)
    assert architectures[-1] == "mobilenet_v2_0.35"


def test_a_result_without_a_seed_has_seed_0() -> None:
    old = {name: value for name, value in REFERENCE.items() if name != "seed"}
    assert list(sweep_of(old).to_frame()["seed"]) == [0]


def test_the_summary_has_mean_and_sample_deviation_over_seeds() -> None:
    summary = SWEEP.summary().set_index("network")
    assert list(summary.index) == (
        ["mobile-reference", "mobile-0.2ms", "mobile-0.3ms", "mobile-mobilenet_v2_0.35"]
    )
    assert list(summary["seeds"]) == [1, 2, 2, 1]
    # 0.960 and 0.968: mean 0.964, sample standard deviation 0.008 / sqrt(2).
    assert summary.loc["mobile-0.2ms", "top1_mean"] == pytest.approx(0.964)
    assert summary.loc["mobile-0.2ms", "top1_sd"] == pytest.approx(0.008 / math.sqrt(2))
    assert summary.loc["mobile-0.3ms", "measured_ms_mean"] == pytest.approx(0.3)


def test_one_seed_has_no_deviation() -> None:
    assert SWEEP.summary()["top1_sd"].isna().tolist() == [True, False, False, True]


def test_the_best_is_the_most_accurate_search_within_the_budget() -> None:
    assert SWEEP.best("mobile", 0.2).name == "mobile-0.2ms-seed1"
    assert SWEEP.best("mobile", 0.3).name == "mobile-0.3ms"


def test_the_best_may_have_been_searched_for_a_smaller_budget() -> None:
    sweep = sweep_of(searched(0.2, 0.2, 0.99), searched(0.3, 0.3, 0.98))
    assert sweep.best("mobile", 0.3).name == "mobile-0.2ms"


def test_a_network_that_was_measured_over_its_budget_is_not_the_best() -> None:
    # Below a millisecond the tolerance is 5 %.
    sweep = sweep_of(searched(0.2, 0.2, 0.90), searched(0.3, 0.316, 0.98))
    assert sweep.best("mobile", 0.3).name == "mobile-0.2ms"


def test_a_network_for_a_larger_budget_is_not_the_best_though_it_is_fast() -> None:
    sweep = sweep_of(searched(0.2, 0.2, 0.90), searched(0.3, 0.19, 0.98))
    assert sweep.best("mobile", 0.2).name == "mobile-0.2ms"


def test_a_budget_can_be_asked_for_in_the_words_of_the_job() -> None:
    sweep = sweep_of(searched(0.31, 0.3, 0.98, budget="80%"), searched(0.4, 0.4, 0.99))
    assert sweep.best("mobile", "80 %").name == "mobile-0.31ms"


def test_a_budget_can_be_asked_for_as_its_name_says_it() -> None:
    sweep = sweep_of(searched(0.287342, 0.28, 0.98, budget="80%"))
    assert sweep.best("mobile", 0.2873).name == "mobile-0.2873ms"


def test_without_accuracies_the_fastest_is_the_best() -> None:
    sweep = sweep_of(searched(0.3, 0.29, None), searched(0.2, 0.19, None))
    assert sweep.best("mobile", 0.3).name == "mobile-0.2ms"


def test_a_target_that_is_not_measured_is_judged_by_its_table() -> None:
    fast = pixel1_result("pixel1-80ms", budget_ms=80.0, table_ms=79.9)
    slow = pixel1_result("pixel1-70ms", budget_ms=70.0, table_ms=85.0, top1=0.99)
    assert sweep_of(fast, slow).best("pixel1", 80.0).name == "pixel1-80ms"


def test_a_budget_that_no_network_keeps_names_what_there_is() -> None:
    with pytest.raises(KeyError, match=r"keeps 0\.1 ms; there are mobile-0\.2ms \(0\.196 ms\), "):
        SWEEP.best("mobile", 0.1)


def test_words_that_no_search_was_for_name_what_there_is() -> None:
    with pytest.raises(KeyError, match=r"was for '80%'; there are \['0\.2', '0\.3'\]"):
        SWEEP.best("mobile", "80%")


def test_a_target_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(KeyError, match=r"of target 'gpu'; there are \['mobile'\]"):
        SWEEP.best("gpu", 1.0)


def test_the_front_rises_from_the_fastest_to_the_most_accurate() -> None:
    # 0.97 at 0.33 ms and 0.976 at 0.29 ms: the baseline is slower and less accurate.
    assert [case.name for case in SWEEP.pareto("mobile")] == [
        *("mobile-0.2ms", "mobile-0.2ms-seed1", "mobile-0.3ms-seed1"),
        *("mobile-0.3ms", "mobile-reference"),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_on_a_front_is_dominated_and_all_else_is(seed: int) -> None:
    rng = random.Random(seed)
    points = [(rng.randint(1, 8), rng.randint(1, 8)) for _ in range(12)]
    free = {
        (x, y)
        for x, y in points
        if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
    }
    assert pareto_front(points, lambda point: point) == sorted(free)


def test_without_accuracies_there_is_no_front() -> None:
    with pytest.raises(KeyError, match="no network of 'mobile' has a top-1"):
        sweep_of(searched(0.2, 0.2, None)).pareto("mobile")


CONTROL = {**searched(0.3, 0.305, 0.97), "kind": "random", "case": "mobile-0.3ms-random"}


def test_a_sweep_is_drawn_with_a_panel_for_each_target(tmp_path: Path) -> None:
    other = pixel1_result("pixel1-80ms", budget_ms=80.0, table_ms=79.9)
    path = sweep_of(*(case.values for case in SWEEP.cases), CONTROL, other).plot(tmp_path / "a.png")
    with Image.open(path) as picture:
        assert picture.size == (2 * 800, 784)


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_suffix_says_the_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    assert SWEEP.plot(str(tmp_path / f"a.{suffix}")).read_bytes().startswith(start)


def test_a_picture_names_hardware_budgets_and_baselines() -> None:
    figure = sweep_figure([case.values for case in SWEEP.cases], "small")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "mobile on host x86-64 (XNNPACK)"
    assert [text.get_text() for text in axes.texts] == ["0.2 ms", "0.3 ms", "mobilenet_v2_0.35"]


def test_a_label_makes_room_for_one_that_has_no_other_place() -> None:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    axes = Figure().subplots()
    x, y = axes.bbox.p0
    here, there = (Bbox.from_bounds(x + right, y, 20, 10) for right in (0, 40))
    assert _best_boxes(axes, [[here, there], [here]], []) == [1, 0]
    assert _best_boxes(axes, [[here, there], [here]], [there]) == [0, 0]


def test_labels_of_a_picture_cover_no_other() -> None:
    near = [searched(0.3 + 0.001 * n, 0.3 + 0.001 * n, 0.98, budget="80%") for n in range(4)]
    axes = sweep_figure(near, "small").axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for a in boxes for b in boxes if a is not b)


@pytest.mark.parametrize("times", [(0.3,), (0.02, 40.0), *slow((0.2, 0.5), (0.03, 0.9))])
def test_figures_at_the_axis_of_latencies_do_not_meet(times: tuple[float, ...]) -> None:
    axes = sweep_figure([searched(ms, ms, 0.98) for ms in times], "small").axes[0]
    low, high = axes.get_xlim()
    shown = [t for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
    boxes = [text.get_window_extent() for text in shown]
    assert 2 <= len(boxes) <= 10
    assert not any(a.overlaps(b) for a in boxes for b in boxes if a is not b)


def test_without_accuracies_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no network of 'small' has a top-1; add `retrain:`"):
        sweep_of(searched(0.2, 0.2, None)).plot(tmp_path / "a.png")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.jpg' is no picture; expected a name that ends in"):
        SWEEP.plot(tmp_path / "a.jpg")


def test_what_is_unknown_is_missing_and_can_be_counted_with() -> None:
    sweep = sweep_of(searched(0.2, None, None), searched(0.3, None, None))
    assert math.isnan(sweep.to_frame()["measured_ms"].mean())
    assert math.isnan(sweep.summary()["top1_mean"].mean())


def test_a_console_shows_the_summary() -> None:
    said = repr(sweep_of(REFERENCE, failed={"mobile-9ms": "a < b"}))
    assert said.startswith("sweep small: 1 networks, 1 failed\n")
    assert "mobile-reference" in said


def test_a_notebook_shows_the_summary_and_what_failed() -> None:
    html = sweep_of(REFERENCE, failed={"mobile-9ms": "a < b"})._repr_html_()
    assert "<td>mobile-reference</td>" in html
    assert "<td>a &lt; b</td>" in html


def test_no_figure_at_the_axis_is_above_a_hundred_percent() -> None:
    figure = sweep_figure([searched(1.0, 0.9, 0.999), searched(2.0, 1.9, 0.9)], "digits")
    figure.canvas.draw()
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert {"100"} <= set(shown)
    assert max(float(text) for text in shown if text) == 100


def test_networks_of_one_accuracy_are_not_lost_in_an_empty_picture() -> None:
    figure = sweep_figure([searched(1.0, 0.9, 0.989), searched(2.0, 1.9, 0.989)], "digits")
    assert figure.axes[0].get_ylim() == pytest.approx((97.9, 99.9))
