from __future__ import annotations

import json
import re
from urllib.parse import unquote

import pytest

from nas_core.architecture import Architecture
from tests.support.job_folder import (
    OPS,
    SPACE,
    START,
    pixel1_result,
    result,
)
from tests.support.recording import CASE, REFERENCE, describe, plan_facts

# Raised by MLflow 3.17 with SQLAlchemy 2.1; recording hides it from its callers.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.mark.slow
def test_the_run_of_a_case_says_what_was_asked_for(standing):
    assert standing.runs("case")[CASE].data.params == {
        "target": "mobile",
        "budget_ms": "0.31",
        "strategy": "two_path",
        "objective": "absolute",
        "space": "proxyless_small",
        "architecture_hash": Architecture(SPACE, OPS).digest(),
        "seed": "0",
    }


def test_the_run_of_a_case_says_what_was_found(standing):
    metrics = standing.runs("case")[CASE].data.metrics
    assert {name: value for name, value in metrics.items() if "/" not in name} == {
        "table_ms": 0.309,
        "measured_ms": 0.312,
        "measured_spread": 0.02,
        "top1": 0.981,
        "top5": 0.999,
        "params": 123_456,
        "macs": 7_000_000,
        "search_s": 31.2,
        "search_gpu_hours": 0,
        "retrain_s": 40.1,
        "retrain_gpu_hours": 0,
    }


def test_a_baseline_is_recorded_beside_the_others_and_not_registered(detailed):
    assert detailed.record().models == ("models:/digits-mobile/1",)
    run = detailed.runs("case")["mobile-mnasnet"]
    assert run.data.tags["kind"] == "baseline"
    assert run.data.params.keys() == {"target", "architecture_hash", "seed"}
    assert run.data.metrics["total_stride"] == 4
    assert "table_ms" not in run.data.metrics


def test_the_ranking_of_a_supernet_is_recorded(detailed):
    metrics = detailed.runs("case")[CASE].data.metrics
    assert {name: value for name, value in metrics.items() if name.startswith("ranking")} == {
        "ranking_spearman_accuracy": 0.6,
        "ranking_kendall_accuracy": 0.4,
        "ranking_spearman_cross_entropy": 0.7,
        "ranking_kendall_cross_entropy": 0.5,
    }


@pytest.mark.slow
def test_a_network_that_was_not_measured_has_no_measured_metric(place):
    place.write([pixel1_result("pixel1-0.31ms"), pixel1_result("pixel1-reference")])
    assert place.record().models == ("models:/digits-pixel1/1",)
    for run in place.runs("case").values():
        assert "table_ms" in run.data.metrics
        assert not [name for name in run.data.metrics if name.startswith("measured")]
    version = place.client.get_model_version_by_alias("digits-pixel1", "best")
    assert "measured_ms" not in version.tags


def test_search_curves_have_epochs_as_steps_and_the_time_when_they_were_found(standing):
    run_id = standing.runs("case")[CASE].info.run_id
    history = standing.client.get_metric_history(run_id, "search/loss")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (epoch, 2.0 / (1 + epoch), int((START + 2 * epoch + 2) * 1000)) for epoch in range(4)
    ]


def test_a_number_that_an_epoch_lacks_is_left_out(standing):
    run_id = standing.runs("case")[CASE].info.run_id
    history = standing.client.get_metric_history(run_id, "search/latency_ms")
    assert [m.step for m in history] == [2, 3]


def test_runs_are_nested_as_job_case_and_retraining(standing):
    job, cases, retrained = (standing.runs(kind) for kind in ("job", "case", "retrain"))
    parent = {
        name: run.data.tags["mlflow.parentRunId"] for name, run in (cases | retrained).items()
    }
    job_id = job["search_mobile"].info.run_id
    assert parent == {
        CASE: job_id,
        REFERENCE: job_id,
        f"{CASE} retrain": cases[CASE].info.run_id,
        f"{REFERENCE} retrain": cases[REFERENCE].info.run_id,
    }


def test_a_stand_in_is_named_on_every_run_of_a_case(standing):
    for run in (standing.runs("case") | standing.runs("retrain")).values():
        assert run.data.tags["stand_in"] == "true"
        assert run.data.tags["hardware"] == "mobile on host x86-64 (XNNPACK)"


def test_a_run_has_its_files(detailed):
    assert detailed.artifacts(detailed.runs("case")[CASE]) == {
        "architecture.json",
        "result.json",
        "latency_table.json",
        "architecture.png",
        "search.png",
    }
    assert detailed.artifacts(detailed.runs("job")["search_mobile"]) == {
        "search_mobile.yaml",
        "job.json",
        "comparison",
    }


def test_settings_of_the_job_are_params_of_its_run(standing):
    assert standing.runs("job")["search_mobile"].data.params == {
        "search.epochs": "6",
        "cases": '[{"target": "mobile"}]',
        "retrain": "null",
    }


def test_links_open_the_view_that_shows_runs(standing):
    links = standing.record()
    page = "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
    assert links.runs == f"{page}&viewStateShareKey=proxyless-key-of-the-job"
    cases = {run.info.run_id for run in standing.runs("case").values()}
    compared = re.fullmatch(
        r".*/#/compare-runs\?runs=(.*)&experiments=(.*)&workflowType=.*", links.compare
    )
    assert set(json.loads(unquote(compared[1]))) == cases
    assert json.loads(unquote(compared[2])) == ["1"]


def test_the_page_of_a_job_shows_its_run_and_its_cases(standing):
    key = standing.record().runs.rpartition("viewStateShareKey=")[2]
    state = json.loads(standing.client.get_experiment("1").tags[f"mlflow.sharedViewState.{key}"])
    actual = standing.client.search_runs(["1"], state["searchFilter"])
    assert {run.info.run_name for run in actual} == {"search_mobile", CASE, REFERENCE}


def test_the_report_of_a_job_is_the_page_of_its_run(standing):
    run = standing.record().report.partition("/runs/")[2]
    parent = standing.runs("job")["search_mobile"].info.run_id
    assert run == f"{parent}?workflowType=machine_learning"


def test_the_page_of_a_job_is_its_report(standing):
    links = standing.record()
    note = standing.runs("job")["search_mobile"].data.tags["mlflow.note.content"]
    assert f"({links.compare[links.compare.index('#') :]})" in note
    row = next(line for line in note.splitlines() if line[:1] == "|" and "mobile-0.31ms" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["mobile-0.31ms", "0.310", "0.309", "0.312", "98.1", "123.5", "7.0"]
    assert "- mobile-0.31ms takes 18 % less time than the reference" in note


def test_the_images_of_a_job_are_its_data_set(detailed):
    (used,) = detailed.runs("job")["search_mobile"].inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.source_type) == ("digits", "code")
    assert json.loads(used.dataset.profile) == {
        "count": 1797,
        "test_count": 449,
        "resolution": 32,
        "channels": 1,
        "classes": 10,
    }


@pytest.mark.slow
def test_what_a_job_spent_and_how_right_its_plan_was_are_metrics_of_its_run(place):
    spent = {"wall_s": 300.0, "estimate_s": 270.0, "estimate_error": -0.1, "steps": {"search": 7}}
    run = spent | {"started": "2026-11-22T21:13:00+00:00"}
    describe(place, runs=[run])
    place.record()
    describe(place, runs=[run, {"started": "2026-11-22T22:13:00+00:00", "wall_s": 5.0}])
    place.record()
    run_id = place.runs("job")["search_mobile"].info.run_id
    metrics = place.client.get_run(run_id).data.metrics
    assert metrics["spent/wall_s"] == 5.0  # of the last run; those before are steps of it
    history = place.client.get_metric_history(run_id, "spent/wall_s")
    assert [(item.step, item.value) for item in history] == [(0, 300.0), (1, 5.0)]
    assert metrics["spent/estimate_error"] == -0.1
    assert metrics["spent/steps_search"] == 7


FAILING = {"name": "mobile-0.2ms", "key": "key-of-0.2", "kind": "search", "target": "mobile"} | {
    "budget_ms": 0.2,
    "seed": 0,
}


@pytest.mark.slow
def test_a_case_that_failed_has_a_run_that_says_why_until_it_is_done(place):
    asked = plan_facts(FAILING, *({"name": n, "key": f"key-of-{n}"} for n in (CASE, REFERENCE)))
    describe(place, plan=asked, failed={"mobile-0.2ms": "it hung"})
    place.record()
    describe(place, plan=asked, failed={"mobile-0.2ms": "a worker | died"})
    for _ in range(2):
        place.record()
    run = place.runs("case")["mobile-0.2ms"]
    assert (run.info.status, run.data.tags["status"]) == ("FAILED", "failed")
    assert run.data.tags["mlflow.note.content"] == "a worker | died"
    assert run.data.params == {"target": "mobile", "budget_ms": "0.2", "seed": "0"}
    note = place.runs("job")["search_mobile"].data.tags["mlflow.note.content"]
    assert "- **mobile-0.2ms failed**: a worker \\| died" in note
    describe(place, plan=asked, failed={})
    place.record()
    assert place.runs("case").keys() == {CASE, REFERENCE}
    note = place.runs("job")["search_mobile"].data.tags["mlflow.note.content"]
    assert "failed" not in note


@pytest.mark.slow
def test_runs_of_earlier_settings_are_no_longer_listed_with_the_job(place):
    place.record()
    place.write([result(CASE, key="another"), result(REFERENCE)])
    view = place.record().runs.rpartition("viewStateShareKey=")[2]
    state = json.loads(place.client.get_experiment("1").tags[f"mlflow.sharedViewState.{view}"])
    listed = place.client.search_runs(["1"], state["searchFilter"])
    keys = {run.data.tags["proxyless.key"] for run in listed}
    assert keys == {"another", f"key-of-{REFERENCE}", "key-of-the-job"}
    old = place.client.search_runs(["1"], "tags.`status` = 'outdated'")
    assert [run.data.tags["proxyless.key"] for run in old] == [f"key-of-{CASE}"]


@pytest.mark.slow
def test_a_picture_that_was_drawn_later_is_recorded_too(place):
    place.record()
    place.job.write_bytes("comparison/matrix.png", b"picture")
    place.job.write_json("comparison/pictures.json", {"matrix.png": "0"})
    place.record()
    run = place.runs("job")["search_mobile"].info.run_id
    files = {artifact.path for artifact in place.client.list_artifacts(run, "comparison")}
    assert files == {"comparison/matrix.png"}


@pytest.mark.slow
def test_a_case_that_is_not_retrained_any_more_registers_no_old_model(place):
    place.write([result(CASE, top1=None, top5=None), result(REFERENCE)])
    assert place.record().models == ()


def test_the_note_says_which_network_to_ship(standing):
    note = standing.runs("job")["search_mobile"].data.tags["mlflow.note.content"]
    assert "`mobile-0.31ms`, 0.312 ms, top-1 98.1 %, `models:/digits-mobile@best`" in note
    assert "report.html" not in note  # nobody has written it here


def test_the_view_of_all_cases_is_stored_where_the_ui_looks_for_it(standing):
    key = standing.record().cases.rpartition("viewStateShareKey=")[2]
    state = json.loads(standing.client.get_experiment("1").tags[f"mlflow.sharedViewState.{key}"])
    actual = standing.client.search_runs(["1"], state["searchFilter"])
    assert {run.info.run_name for run in actual} == {CASE, REFERENCE}
