from __future__ import annotations

import csv
import io
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from cluster.storage import Storage
from nas_core.calibration import Calibration, MeasuredNetwork
from orchestration.reports.comparison import write_comparison
from orchestration.reports.figures.calibration import predicted_ms
from orchestration.reports.row_files import KINDS, parquet_bytes
from orchestration.reports.table import (
    COLUMNS,
    best_result,
    comparison_text,
    keeps_budget,
    print_comparison,
    read_results,
    row_of,
)
from tests.support.figures import blank_pictures
from tests.support.job_folder import (
    baseline_result,
    latency_table,
    pixel1_result,
    result,
    write_job,
)

CASE = result("mobile-0.31ms")
REFERENCE = result("mobile-reference")


def lines_of(*results):
    return [line.strip() for line in comparison_text(results).splitlines() if line.strip()]


def test_the_reference_is_the_row_to_beat():
    row = next(line for line in lines_of(CASE, REFERENCE) if line.startswith("reference"))
    assert row.split() == (
        ["reference", "(to", "beat)", "-", "0.380", "0.380", "98.5", "99.9", "123.5", "7.0", "-"]
    )


def test_a_case_has_all_its_figures():
    row = next(line for line in lines_of(CASE, REFERENCE) if line.startswith("mobile-0.31ms "))
    assert row.split() == (
        ["mobile-0.31ms", "0.310", "0.309", "0.312", "98.1", "99.9", "123.5", "7.0", "31"]
    )


def test_headers_carry_units():
    header = next(line for line in lines_of(CASE, REFERENCE) if line.startswith("network"))
    for column in ("measured ms", "top-1 %", "MACs M", "search s"):
        assert column in header


def test_the_text_says_what_the_search_gained():
    # 0.312 ms is 17.9 % less than 0.380 ms; 98.1 % is 0.4 points below 98.5 %.
    assert lines_of(CASE, REFERENCE)[-1] == (
        "mobile-0.31ms takes 18 % less time than the reference, top-1 0.4 points lower"
    )


def test_a_slower_network_is_called_slower():
    slow = result("mobile-0.5ms", measured_ms=0.418, top1=0.99)
    assert lines_of(slow, REFERENCE)[-1] == (
        "mobile-0.5ms takes 10 % more time than the reference, top-1 0.5 points higher"
    )


def test_a_network_that_takes_a_multiple_is_said_to():
    slow = baseline_result("mobilenet_v2", measured_ms=3.8, top1=0.985)
    assert lines_of(slow, REFERENCE)[-1] == (
        "mobile-mobilenet_v2 takes 10.0 times the time of the reference, top-1 the same"
    )


def test_lines_fit_a_terminal_of_120_columns():
    widest = baseline_result("mobilenet_v2_1.4", params=25_557_032, macs=3_678_200_000)
    text = comparison_text([CASE, REFERENCE, widest])
    assert max(map(len, text.splitlines())) <= 120


def test_a_baseline_stands_in_the_table_with_its_total_stride():
    row = lines_of(CASE, REFERENCE, baseline_result("mobilenet_v2"))[5]
    assert row.split() == (
        ["mobile-mobilenet_v2", "-", "-", "0.520", "98.1", "99.9", "123.5", "7.0", "4", "0"]
    )


def test_a_given_network_of_another_stride_shows_the_strides():
    given = {**CASE, "kind": "given", "case": "mobile-mine", "total_stride": 32}
    lines = lines_of({**CASE, "total_stride": 4}, given)
    assert lines[1].split()[-3:] == ["stride", "search", "s"]
    assert [line.split()[-2] for line in lines[3:5]] == ["4", "32"]


def test_a_result_without_a_stride_has_a_dash_beside_a_baseline():
    row = lines_of(CASE, baseline_result("mobilenet_v2"))[3]
    assert row.split()[-2:] == ["-", "31"]


def test_a_baseline_is_compared_with_the_reference():
    actual = lines_of(REFERENCE, baseline_result("mobilenet_v2"))[-1]
    assert actual == (
        "mobile-mobilenet_v2 takes 37 % more time than the reference, top-1 0.4 points lower"
    )


def test_networks_that_were_not_measured_are_compared_by_the_table():
    case, reference = pixel1_result("pixel1-0.3ms"), pixel1_result("pixel1-reference")
    assert lines_of(case, reference)[-1] == (
        "pixel1-0.3ms takes 19 % less time than the reference by the table, top-1 0.4 points lower"
    )
    row = next(line for line in lines_of(case, reference) if line.startswith("pixel1-0.3ms "))
    assert row.split()[:4] == ["pixel1-0.3ms", "0.310", "0.309", "-"]


def test_notes_stand_under_the_table():
    actual = lines_of(result("mobile-0.31ms", notes=["the penalty was too weak"]), REFERENCE)
    assert actual[-1] == "mobile-0.31ms: the penalty was too weak"


def test_a_case_without_retraining_has_no_accuracy():
    bare = result("mobile-0.31ms", top1=None, top5=None)
    assert lines_of(bare, REFERENCE)[-1] == "mobile-0.31ms takes 18 % less time than the reference"


def test_every_hardware_has_a_table_of_its_own(capsys):
    print_comparison([CASE, result("gpu-1ms", hardware="gpu (H200)", target="gpu")])
    assert "mobile on host x86-64 (XNNPACK)\n" in (printed := capsys.readouterr().out)
    assert "gpu (H200)\n" in printed


def test_results_come_as_reference_then_by_budget(tmp_path):
    cases = [result("mobile-0.31ms"), result("mobile-0.2ms", budget_ms=0.2), REFERENCE]
    actual = read_results(write_job(tmp_path, cases))
    assert [r["case"] for r in actual] == ["mobile-reference", "mobile-0.2ms", "mobile-0.31ms"]


def test_results_without_a_search_come_behind_those_with_one(tmp_path):
    given = result("mobile-proxyless_mobile", kind="given", budget=None, budget_ms=None)
    cases = [baseline_result("mnasnet"), given, result("mobile-0.31ms"), REFERENCE]
    actual = read_results(write_job(tmp_path, cases))
    assert [r["kind"] for r in actual] == ["reference", "search", "given", "baseline"]


def test_random_networks_come_behind_all_searches_of_their_target(tmp_path):
    drawn = result("mobile-random-0.2ms", kind="random", strategy=None, budget_ms=0.2)
    cases = [drawn, baseline_result("mnasnet"), result("mobile-0.31ms"), REFERENCE]
    actual = read_results(write_job(tmp_path, cases))
    assert [r["kind"] for r in actual] == ["reference", "search", "random", "baseline"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A comparison, for tests that only read it. Drawing its figures takes a second."""
    folder = tmp_path_factory.mktemp("written")
    job = write_job(folder, [CASE, REFERENCE])
    write_comparison(job, Storage(str(folder / "tables")))
    return job


@pytest.mark.slow
def test_the_comparison_is_written_as_json(written):
    rows = written.read_json("comparison/comparison.json")["rows"]
    assert [(row["case"], row["measured_ms"]) for row in rows] == [
        ("mobile-reference", 0.38),
        ("mobile-0.31ms", 0.312),
    ]


def test_csv_and_json_say_the_same(written):
    rows = written.read_json("comparison/comparison.json")["rows"]
    table = csv.DictReader(io.StringIO(written.read_text("comparison/comparison.csv")))
    as_text = [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    assert list(table) == as_text


def test_parquet_and_json_say_the_same(written):
    rows = written.read_json("comparison/comparison.json")["rows"]
    table = pq.read_table(written.path("comparison/comparison.parquet"))
    assert table.column_names == list(rows[0])
    assert table.to_pylist() == rows


def test_types_of_parquet_do_not_depend_on_what_is_known():
    actual = {"budget_ms": 0.31, "seed": 0, "stand_in": True, "budget": "80%", "params": 7}
    full, empty = (
        pq.read_table(io.BytesIO(parquet_bytes(rows)))
        for rows in ([dict.fromkeys(KINDS) | actual], [dict.fromkeys(KINDS)])
    )
    assert full.schema == empty.schema
    assert pq.read_table(io.BytesIO(parquet_bytes([]))).schema == empty.schema
    assert (str(full.schema.field("params").type), str(full.schema.field("top1").type)) == (
        "int64",
        "double",
    )


def test_budgets_in_milliseconds_stand_beside_percentages_in_parquet():
    rows = [{"budget": "80%"}, {"budget": 0.31}]
    assert pq.read_table(io.BytesIO(parquet_bytes(rows)))["budget"].to_pylist() == ["80%", "0.31"]


def test_files_have_every_figure_of_the_table():
    assert set(COLUMNS) <= set(KINDS)


def test_the_comparison_tells_seed_and_warm_up():
    rows = [row_of(item) for item in (REFERENCE, result("mobile-0.31ms", seed=1, warmup_s=12.5))]
    assert [(row["seed"], row["warmup_s"]) for row in rows] == [(0, None), (1, 12.5)]


def test_every_searched_network_has_a_picture(written):
    pictures = {key for key in written.list("comparison") if key.endswith(".png")}
    assert {
        "comparison/mobile-0.31ms-network.png",
        "comparison/mobile-0.31ms-search.png",
    } <= pictures
    assert "comparison/mobile-reference-network.png" not in pictures


def test_the_comparison_is_on_one_page_too(written):
    assert "<td>mobile-0.31ms</td>" in written.read_text("comparison/report.html")


def test_a_given_network_has_a_picture_though_the_table_does_not_cover_it(tmp_path, monkeypatch):
    blank_pictures(monkeypatch)
    given = result("mobile-my", kind="given", budget=None, budget_ms=None, table_ms=None)
    job = write_job(tmp_path, [given, baseline_result("mnasnet"), REFERENCE])
    write_comparison(job, Storage(str(tmp_path / "tables")))
    pictures = [key for key in job.list("comparison") if key.startswith("comparison/mobile-")]
    assert "comparison/mobile-my-network.png" in pictures
    assert "comparison/mobile-mnasnet-network.png" not in pictures


@pytest.mark.slow
def test_the_comparison_is_the_same_twice(written, tmp_path):
    again = write_job(tmp_path, [CASE, REFERENCE])
    write_comparison(again, Storage(str(tmp_path / "tables")))
    first, second = (
        {key: job.read_bytes(key) for key in job.list("comparison")} for job in (written, again)
    )
    assert second == first


@pytest.mark.parametrize(
    ("budget_ms", "measured_ms", "keeps"),
    [
        (0.3, 0.3, True),
        (0.3, 0.314, True),
        (0.3, 0.316, False),
        (5.0, 5.09, True),
        (5.0, 5.2, False),
    ],
)
def test_a_budget_is_kept_within_what_repeats_differ_by(budget_ms, measured_ms, keeps):
    assert keeps_budget({"budget_ms": budget_ms, "measured_ms": measured_ms}) is keeps


def test_a_budget_closes_on_the_table_where_nothing_is_measured():
    values = {"budget_ms": 80.0, "measured_ms": None}
    assert keeps_budget(values | {"table_ms": 79.9})
    assert not keeps_budget(values | {"table_ms": 85.0})


def test_the_faster_of_two_equally_accurate_networks_is_the_best():
    slow = {"budget_ms": 1.0, "measured_ms": 0.9, "top1": 0.98}
    fast = {"budget_ms": 1.0, "measured_ms": 0.5, "top1": 0.98}
    assert best_result([slow, fast]) is fast


@pytest.mark.slow
def test_networks_of_the_job_are_marked_where_its_table_is_judged(tmp_path, monkeypatch):
    job = write_job(tmp_path, [CASE, REFERENCE, baseline_result("mobilenet_v2_0.35")])
    one = MeasuredNetwork(name="random", ops=None, parts_ms=0.1, measured_ms=0.1, spread=0.0)
    table = replace(
        latency_table(), scale=2.0, offset_ms=0.01, calibration=Calibration(fitted=(one,))
    )
    Storage(str(tmp_path)).write_json("tables/table0.json", table.to_dict())
    drawn = []
    blank_pictures(monkeypatch)
    monkeypatch.setattr(
        "orchestration.reports.figures.calibration.calibration_png",
        lambda t: drawn.append(t) or b"png",
    )
    write_comparison(job, Storage(str(tmp_path / "tables")))
    assert job.read_bytes("comparison/mobile-latency.png") == b"png"
    baseline, actual = sorted(
        drawn[0].calibration.others, key=lambda other: other.name, reverse=True
    )
    assert (baseline.parts_ms, baseline.measured_ms) == (None, 0.52)
    assert predicted_ms(drawn[0], actual) == pytest.approx(CASE["table_ms"])
