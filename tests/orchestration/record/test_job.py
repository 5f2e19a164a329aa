from __future__ import annotations

import json
import re
from urllib.parse import unquote

import pytest

from nas_core.architecture import Architecture
from tests.orchestration.job_folder import (
    OPS,
    SPACE,
    START,
    baseline_result,
    pixel1_result,
    result,
)
from tests.orchestration.record.place import CASE, REFERENCE

# What MLflow 3.17 does with SQLAlchemy 2.1; recording keeps it from its callers.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def test_the_run_of_a_case_says_what_was_asked_for(place):
    place.record()
    assert place.runs("case")[CASE].data.params == {
        "target": "mobile",
        "budget_ms": "0.31",
        "strategy": "two_path",
        "objective": "absolute",
        "space": "proxyless_small",
        "architecture_hash": Architecture(SPACE, OPS).digest(),
        "seed": "0",
    }


def test_the_run_of_a_case_says_what_was_found(place):
    place.record()
    metrics = place.runs("case")[CASE].data.metrics
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


def test_a_baseline_is_recorded_beside_the_others_and_not_registered(place):
    place.write([result(CASE), baseline_result("mnasnet"), result(REFERENCE)])
    assert place.record().models == ("models:/digits-mobile/1",)
    run = place.runs("case")["mobile-mnasnet"]
    assert run.data.tags["kind"] == "baseline"
    assert run.data.params.keys() == {"target", "architecture_hash", "seed"}
    assert run.data.metrics["total_stride"] == 4
    assert "table_ms" not in run.data.metrics


def test_the_ranking_of_a_supernet_is_recorded(place):
    agreement = {"spearman": 0.6, "kendall": 0.4}
    ranking = {"accuracy": agreement, "cross_entropy": {"spearman": 0.7, "kendall": 0.5}}
    place.write([result(CASE, ranking=ranking | {"networks": [], "seconds": 1.0})])
    place.record()
    metrics = place.runs("case")[CASE].data.metrics
    assert {name: value for name, value in metrics.items() if name.startswith("ranking")} == {
        "ranking_spearman_accuracy": 0.6,
        "ranking_kendall_accuracy": 0.4,
        "ranking_spearman_cross_entropy": 0.7,
        "ranking_kendall_cross_entropy": 0.5,
    }


def test_a_network_that_was_not_measured_has_no_measured_metric(place):
    place.write([pixel1_result("pixel1-0.31ms"), pixel1_result("pixel1-reference")])
    assert place.record().models == ("models:/digits-pixel1/1",)
    for run in place.runs("case").values():
        assert "table_ms" in run.data.metrics
        assert not [name for name in run.data.metrics if name.startswith("measured")]
    version = place.client.get_model_version_by_alias("digits-pixel1", "best")
    assert "measured_ms" not in version.tags


def test_search_curves_have_epochs_as_steps_and_the_time_when_they_were_found(place):
    place.record()
    run_id = place.runs("case")[CASE].info.run_id
    history = place.client.get_metric_history(run_id, "search/loss")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (epoch, 2.0 / (1 + epoch), int((START + 2 * epoch + 2) * 1000)) for epoch in range(4)
    ]


def test_a_number_that_an_epoch_lacks_is_left_out(place):
    place.record()
    run_id = place.runs("case")[CASE].info.run_id
    history = place.client.get_metric_history(run_id, "search/latency_ms")
    assert [m.step for m in history] == [2, 3]


def test_runs_are_nested_as_job_case_and_retraining(place):
    place.record()
    job, cases, retrained = (place.runs(kind) for kind in ("job", "case", "retrain"))
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


def test_a_stand_in_is_named_on_every_run_of_a_case(place):
    place.record()
    for run in (place.runs("case") | place.runs("retrain")).values():
        assert run.data.tags["stand_in"] == "true"
        assert run.data.tags["hardware"] == "mobile on host x86-64 (XNNPACK)"


def test_a_run_has_its_files(place):
    place.job.write_bytes(f"comparison/{CASE}.png", b"picture")
    place.record()
    assert place.artifacts(place.runs("case")[CASE]) == {
        "architecture.json",
        "result.json",
        "latency_table.json",
        "architecture.png",
    }
    assert place.artifacts(place.runs("job")["search_mobile"]) == {
        "search_mobile.yaml",
        "job.json",
        "comparison",
    }


def test_settings_of_the_job_are_params_of_its_run(place):
    place.record()
    assert place.runs("job")["search_mobile"].data.params == {
        "search.epochs": "6",
        "cases": '[{"target": "mobile"}]',
        "retrain": "null",
    }


def test_links_open_the_view_that_shows_runs(place):
    links = place.record()
    assert links.runs == "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
    cases = {run.info.run_id for run in place.runs("case").values()}
    compared = re.fullmatch(r".*/#/compare-runs\?runs=(.*)&experiments=(.*)", links.compare)
    assert set(json.loads(unquote(compared[1]))) == cases
    assert json.loads(unquote(compared[2])) == ["1"]


def test_the_view_of_all_cases_is_stored_where_the_ui_looks_for_it(place):
    key = place.record().cases.rpartition("viewStateShareKey=")[2]
    state = json.loads(place.client.get_experiment("1").tags[f"mlflow.sharedViewState.{key}"])
    found = place.client.search_runs(["1"], state["searchFilter"])
    assert {run.info.run_name for run in found} == {CASE, REFERENCE}
