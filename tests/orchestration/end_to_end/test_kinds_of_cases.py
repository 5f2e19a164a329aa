"""Cases with and without a search on a real local Ray, through the Python API.

Three jobs run once, in fixtures: random search by one worker, with a baseline and a given network;
REINFORCE by two workers, whose ranking is measured and whose derivation is re-ranked; and one for a
Pixel 1, where nothing is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas_core.architecture import Architecture
from tests.conftest import REPOSITORY
from tests.support.worker_context import tiny_job

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

DRIVER = """
import sys
from orchestration import load_job, run
result = run(load_job(sys.argv[1]), say=lambda line: print(line, flush=True))
for case in result.cases:
    print("CASE", case.name, case.kind, case.architecture.num_params(), case.params)
sys.exit(len(result.failed))
"""
RANDOM = {"strategy": "random", "objective": "none"}
REINFORCE = {
    "strategy": "reinforce",
    "ranking_networks": 2,
    "rerank": 2,
    "rerank_min_spearman": -1.0,
    "objective": "absolute",
    "beta": 0.0,
}


@dataclass(frozen=True)
class Finished:
    """A job that ran."""

    folder: Path
    code: int
    said: str

    def result(self, case: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(
            (self.folder / "cases" / case / "result.json").read_text()
        )
        return values

    def searched(self) -> dict[str, Any]:
        result = [json.loads(p.read_text()) for p in self.folder.glob("cases/*/result.json")]
        return next(item for item in result if item["kind"] == "search")

    def metrics(self, run: str) -> dict[str, float]:
        """Runs in MLflow by name."""
        with contextlib.closing(sqlite3.connect(self.folder.parent / "mlflow.db")) as database:
            query = (
                "select m.key, m.value from latest_metrics m join runs r "
                "on m.run_uuid = r.run_uuid where r.name = ?"
            )
            return dict(database.execute(query, [run]).fetchall())


def driven(storage: Path, name: str, cases: list[dict[str, Any]], **sections: Any) -> Finished:
    """Run a job with its own driver and its own Ray."""
    job = tiny_job(storage, cases, name=name, **sections)
    path = storage / f"{name}.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(job.to_dict()))))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, str(path)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"},
        timeout=800,
        check=False,
    )
    return Finished(storage / name, done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


def given(storage: Path) -> Path:
    """An architecture file in the search space of the job."""
    job = tiny_job(storage)
    path = storage / "mine.json"
    path.write_text(Architecture.reference(job.space.build(10, 1, 16)).to_json())
    return path


@pytest.fixture(scope="module")
def compared(storage: Path) -> Finished:
    cases = [
        {"target": "mobile", "budgets_ms": ["110%"]},
        {"target": "mobile", "baseline": "mobilenet_v2_0.35"},
        {"target": "mobile", "architecture": str(given(storage))},
    ]
    done = driven(storage, "compared", cases, search=RANDOM)
    assert done.code == 0, done.said
    return done


@pytest.fixture(scope="module")
def ranked(storage: Path, compared: Finished) -> Finished:
    cases = [{"target": "mobile", "budgets_ms": ["70%"]}]
    done = driven(storage, "ranked", cases, search=REINFORCE, cluster={"workers": 2})
    assert done.code == 0, done.said
    return done


@pytest.fixture(scope="module")
def pixel(storage: Path) -> Finished:
    """A search that trains no weights, and a given network, where nothing is measured."""
    cases = [
        {"target": "pixel1", "budgets_ms": [110.0]},
        {"target": "pixel1", "architecture": "proxyless_mobile"},
    ]
    done = driven(
        storage,
        "pixel",
        cases,
        data={"source": "digits", "resolution": 224, "test_share": 0.9},
        space={"name": "proxyless_imagenet"},
        search=RANDOM
        | {"warmup_epochs": 0, "epochs": 1, "batch_size": 45, "alpha_every": 1, "bn_images": 0}
        | {"architecture_share": 0.5},
        retrain=None,
    )
    assert done.code == 0, done.said
    return done


def test_every_case_is_trained_and_measured(compared: Finished) -> None:
    names = {path.name for path in (compared.folder / "cases").iterdir()}
    searched = compared.searched()["case"]
    assert names == {"mobile-reference", "mobile-mobilenet_v2_0.35", "mobile-mine", searched}
    for name in names:
        result = compared.result(name)
        assert result["measured_ms"] > 0
        assert 0 <= result["top1"] <= 1
        assert (compared.folder / "cases" / name / "model" / "model.pte").is_file()


def test_a_random_search_takes_the_best_network_that_it_scored(compared: Finished) -> None:
    result = compared.searched()
    assert (result["strategy"], result["objective"]) == ("random", "none")
    assert result["trials"]["number"] > 1
    assert result["table_ms"] <= result["budget_ms"]
    scored = [item["ops"] for item in result["trials"]["best"]]
    assert result["architecture"]["ops"] in scored


def test_a_given_member_of_the_space_has_both_latencies(compared: Finished) -> None:
    result, reference = compared.result("mobile-mine"), compared.result("mobile-reference")
    assert result["architecture"] == reference["architecture"]
    assert result["table_ms"] == pytest.approx(reference["table_ms"])
    assert result["measured_ms"] == pytest.approx(reference["measured_ms"], rel=0.5)


def test_the_table_at_the_end_has_the_baseline_with_its_stride(compared: Finished) -> None:
    row = next(line for line in compared.said.splitlines() if "  mobile-mobilenet_v2_0.35 " in line)
    assert row.split()[1:3] == ["-", "-"]
    assert row.split()[-2] == "2"


def test_results_hold_models_of_both_kinds(compared: Finished) -> None:
    lines = [line.split() for line in compared.said.splitlines() if line.startswith("CASE")]
    assert {kind for _, _, kind, _, _ in lines} == {"search", "baseline", "given", "reference"}
    assert all(counted == stored for _, _, _, counted, stored in lines)


def test_a_ranking_is_measured_said_and_recorded(ranked: Finished) -> None:
    result = ranked.searched()
    assert len(result["ranking"]["networks"]) == 2
    assert sum("ranking 00" in line for line in ranked.said.splitlines()) == 2
    metrics = ranked.metrics(result["case"])
    spearman = result["ranking"]["accuracy"]["spearman"]
    assert metrics["ranking_spearman_accuracy"] == spearman


def test_two_workers_rerank_together(ranked: Finished) -> None:
    result = ranked.searched()
    assert result["workers"] == 2
    assert len(set(result["alphas"])) == 1
    assert result["rerank"]["used"]
    candidates = result["rerank"]["candidates"]
    assert result["architecture"]["ops"] in [candidate["ops"] for candidate in candidates]


def test_a_penalty_without_weight_is_noted_below_the_table(ranked: Finished) -> None:
    result = ranked.searched()
    assert len(result["notes"]) == 1
    lines = ranked.said.splitlines()
    assert f"NOTE {result['case']}: {result['notes'][0]}" in lines
    assert f"{result['case']}: {result['notes'][0]}" in lines
    assert ranked.metrics(result["case"])["expected_ms"] == pytest.approx(result["expected_ms"])


def test_on_a_pixel_1_a_budget_closes_on_the_table(pixel: Finished) -> None:
    result = pixel.searched()
    assert result["table_ms"] <= result["budget_ms"] == 110.0
    assert (result["measured_ms"], result["measured_spread"]) == (None, None)
    metrics = pixel.metrics(result["case"])
    assert metrics["table_ms"] == pytest.approx(result["table_ms"])
    assert not [name for name in metrics if name.startswith("measured")]


def test_a_published_network_costs_on_a_pixel_1_what_was_published(pixel: Finished) -> None:
    assert pixel.result("pixel1-proxyless_mobile")["table_ms"] == pytest.approx(84.42, abs=0.01)
    row = next(line for line in pixel.said.splitlines() if "  pixel1-proxyless_mobile " in line)
    assert row.split()[1:4] == ["-", "84.416", "-"]


def test_a_case_that_has_nothing_to_report_is_not_announced_by_ray(pixel: Finished) -> None:
    assert "Trial " not in pixel.said


def test_what_was_not_measured_can_be_compared_and_recorded_again(pixel: Finished) -> None:
    for command in ("compare", "record"):
        words = [sys.executable, "-W", "ignore", "-m", "orchestration", command, str(pixel.folder)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, check=False)
        assert done.returncode == 0, done.stderr
