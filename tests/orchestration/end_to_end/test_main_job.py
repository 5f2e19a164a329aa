"""The main job on a real local Ray: submitted, searched with two workers, retrained, recorded.

The job runs once, in a fixture; each test then checks one claim about its outputs.
"""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.submit import submit
from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable
from orchestration.cli.app import main
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

TWO_SITES = {
    "stem": {"channels": 16, "stride": 1},
    "stages": [{"width": 16, "blocks": 2, "stride": 2}],
    "head": 64,
    "ops": ["mbconv_k3_e3", "mbconv_k3_e6", "mbconv_k5_e6", "skip"],
}
"""A space of twelve networks; calibration needs nine."""
SMALL = {
    "data.resolution": "16",
    "space": json.dumps(TWO_SITES),
    "measure.calibrate_s": "0",  # the smallest number of networks for a calibration
    "measure.rounds": "5",
    "measure.network_rounds": "5",
    "measure.samples_per_round": "2",
    "measure.sample_ms": "1",
    "search.batch_size": "32",
    "search.warmup_epochs": "1",
    "search.epochs": "2",
    "retrain.epochs": "4",
    "cluster.workers": "2",
}


@dataclass(frozen=True)
class Finished:
    """A job that ran."""

    storage: Path
    code: int
    said: str
    overrides: list[str]

    @property
    def folder(self) -> Path:
        return self.storage / "search_mobile"

    def results(self) -> dict[str, dict[str, Any]]:
        """Results of the searched case and of the reference, by kind."""
        result = [json.loads(p.read_text()) for p in self.folder.glob("cases/*/result.json")]
        return {item["kind"]: item for item in result}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of MLflow's database."""
        with contextlib.closing(sqlite3.connect(self.storage / "mlflow.db")) as database:
            return database.execute(sql).fetchall()


def submitted(storage: Path, *overrides: str) -> Finished:
    """Submit a reduced version of the main job to its own Ray."""
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    words = [f"storage={storage}", *settings, *overrides]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        arguments = [word for setting in words for word in ("--set", setting)]
        code = submit("jobs/search_mobile.yaml", REPOSITORY, arguments)
    return Finished(storage, code, said.getvalue(), words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        done = submitted(tmp_path_factory.mktemp("storage"))
        assert done.code == 0, done.said
        yield done


def test_the_job_ends_with_a_table_and_links(finished: Finished) -> None:
    assert "reference (to beat)" in finished.said
    assert "/#/experiments/1/runs?workflowType=machine_learning" in finished.said
    assert "/#/compare-runs?runs=" in finished.said


def test_there_is_one_line_per_epoch(finished: Finished) -> None:
    lines = finished.said.splitlines()
    assert sum("warmup" in line and " loss " in line for line in lines) == 1
    assert sum("search " in line and " loss " in line for line in lines) == 2
    assert sum("retrain " in line and " loss " in line for line in lines) == 2 * 4


def test_the_derived_network_keeps_its_budget_by_the_table(finished: Finished) -> None:
    result = finished.results()["search"]
    key = result["table_key"]
    table = LatencyTable.from_dict(
        json.loads((finished.storage / "tables" / f"{key}.json").read_text())
    )
    assert table.reference_ms is not None
    assert result["budget_ms"] == pytest.approx(0.8 * table.reference_ms)
    assert result["table_ms"] <= result["budget_ms"]
    first = Architecture.from_dict(result["architecture"])
    if len(result["tries"]) == 1:  # later tries use a recalibrated table
        assert table.latency_ms(first) == pytest.approx(result["table_ms"])
    assert result["measured_ms"] > 0


def test_both_workers_end_with_the_same_architecture_parameters(finished: Finished) -> None:
    result = finished.results()["search"]
    assert result["workers"] == 2
    assert len(result["alphas"]) == 2
    assert len(set(result["alphas"])) == 1


def test_the_test_part_is_read_by_both_networks_and_learnt(finished: Finished) -> None:
    for result in finished.results().values():
        assert result["tested"] == 450  # a quarter of each class, rounded
        assert result["top1"] > 0.5  # chance is 0.1


def test_the_runs_are_in_mlflow_as_a_tree(finished: Finished) -> None:
    runs = dict(finished.query("select run_uuid, name from runs"))
    parents = dict(
        finished.query("select run_uuid, value from tags where key = 'mlflow.parentRunId'")
    )
    case = finished.results()["search"]["case"]
    tree = {name: runs.get(parents.get(run, "")) for run, name in runs.items()}
    assert tree == {
        "search_mobile": None,
        case: "search_mobile",
        "mobile-reference": "search_mobile",
        f"{case} retrain": case,
        "mobile-reference retrain": "mobile-reference",
    }


def test_mlflow_has_the_figures_of_the_result(finished: Finished) -> None:
    result = finished.results()["search"]
    rows = finished.query(
        "select m.key, m.value from latest_metrics m join runs r on m.run_uuid = r.run_uuid "
        f"where r.name = '{result['case']}'"
    )
    metrics = dict(rows)
    for name in ("table_ms", "measured_ms", "top1", "top5", "params", "macs"):
        assert metrics[name] == pytest.approx(result[name])


def test_the_model_is_registered_and_classifies_files(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    assert finished.query("select name, version from model_versions") == [("digits-mobile", 1)]
    digit = load_digits().images[0]  # a zero
    path = tmp_path / "digit.png"
    Image.fromarray((digit * (255 / 16)).astype(np.uint8)).save(path)
    words = ["predict", "models:/digits-mobile@best", str(path)]
    assert main([*words, "--storage", str(finished.storage)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{path}  ")
    assert said.count("%") == 3


def test_recording_again_changes_nothing(finished: Finished) -> None:
    def everything() -> list[list[tuple[Any, ...]]]:
        tables = ("runs", "metrics", "params", "model_versions", "tags")
        return [sorted(finished.query(f"select * from {table}"), key=str) for table in tables]

    before = everything()
    assert main(["record", str(finished.folder)]) == 0
    assert everything() == before


def test_a_finished_job_does_no_work_and_needs_no_ray(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "no-such-cluster:1")
    before = {p: p.stat().st_mtime_ns for p in finished.folder.glob("cases/**/*")}
    words = [word for setting in finished.overrides for word in ("--set", setting)]
    assert main(["jobs/search_mobile.yaml", *words]) == 0
    assert "nothing to train" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.folder.glob("cases/**/*")} == before


def test_no_half_written_file_is_left(finished: Finished) -> None:
    assert not list(finished.storage.rglob("*.tmp"))
    assert not (finished.folder / "lease.json").exists()


def test_the_model_folder_runs_without_this_project(finished: Finished) -> None:
    import torch

    case = finished.results()["search"]["case"]
    folder = finished.folder / "cases" / case / "model"
    assert {p.name for p in folder.iterdir()} >= {"model.pt2", "model.pte", "model.json"}
    program = torch.export.load(folder / "model.pt2").module()
    assert program(torch.zeros(3, 1, 16, 16)).shape == (3, 10)
