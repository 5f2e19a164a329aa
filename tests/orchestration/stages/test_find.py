"""The network of each kind of case, its stored form, and its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from nas_core.architecture import Architecture, Model
from nas_core.baselines.registry import Baseline
from orchestration.data.dataset import Dataset
from orchestration.latency.network import Measured
from orchestration.stages import candidate, derive
from orchestration.stages.context import WorkerContext
from orchestration.stages.find import find_network
from orchestration.stages.result import result_of, write_result
from orchestration.state.result import Result
from tests.support.worker_context import Reports, context_of, digits, tiny_job

CASES = [
    {"target": "mobile", "budgets_ms": ["110%"]},
    {"target": "mobile", "baseline": "mobilenet_v2_0.35"},
    {"target": "mobile", "architecture": "proxyless_mobile"},
]
IMAGENET = {"name": "proxyless_imagenet"}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """Record of measured networks; each takes 2 ms."""
    seen: list[Model] = []

    def measure(model: Model, *_: Any) -> Measured:
        seen.append(model)
        return Measured(2.0, 0.01, 1.0)

    monkeypatch.setattr(candidate, "measure_network", measure)
    return seen


def context(dataset: Dataset, folder: Path, case: str) -> WorkerContext:
    return context_of(tiny_job(folder, CASES), dataset, case=case)


def test_a_baseline_is_measured_and_no_member_of_the_space(
    dataset: Dataset, tmp_path: Path, measured: list[Model]
) -> None:
    one = context(dataset, tmp_path, "mobile-mobilenet_v2_0.35")
    got = find_network(one, one.task.case)
    assert isinstance(got.model, Baseline)
    assert measured == [got.model]
    assert (got.table_ms, got.measured_ms, got.measured_spread) == (None, 2.0, 0.01)
    assert got.tries == [{"table_ms": None, "measured_ms": 2.0, "drift": 1.0}]


def test_a_case_that_was_measured_is_not_measured_again(
    dataset: Dataset, tmp_path: Path, measured: list[Model]
) -> None:
    one = context(dataset, tmp_path, "mobile-proxyless_mobile")
    first = find_network(one, one.task.case)
    assert find_network(one, one.task.case) == first
    assert len(measured) == 1


def test_a_reference_network_alone_is_not_searched(
    dataset: Dataset, tmp_path: Path, measured: list[Model]
) -> None:
    one = context(dataset, tmp_path, "mobile-reference")
    got = find_network(one, one.task.case)
    assert got.model == Architecture.reference(one.task.table.space)
    assert (got.measured_ms, got.history) == (one.task.table.reference_ms, [])
    assert measured == []


def test_the_result_of_a_baseline_says_what_it_is(
    dataset: Dataset, tmp_path: Path, measured: list[Model]
) -> None:
    one = context(dataset, tmp_path, "mobile-mobilenet_v2_0.35")
    got = find_network(one, one.task.case)
    values = result_of(one, one.task.case, got, {"top1": 0.9})
    assert values["kind"] == "baseline"
    assert (values["strategy"], values["objective"], values["space"]) == (None, None, None)
    assert (values["table_ms"], values["budget_ms"], values["top1"]) == (None, None, 0.9)
    assert values["params"] == got.model.num_params()
    assert values["total_stride"] == 2  # of the space: only its stem halves the image
    assert values["architecture"] == got.model.to_dict()


@pytest.fixture(scope="module")
def result(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Result of a complete search with a stand-in for the measurement, read from storage."""
    folder = tmp_path_factory.mktemp("case")
    with pytest.MonkeyPatch.context() as patch:
        Reports(patch)
        patch.setattr(derive, "measured_together", lambda *_: Measured(0.01, 0.0, 1.0))
        settings = {"strategy": "evolution", "ranking_networks": 2}
        one = context_of(tiny_job(folder, search=settings), dataset)
        write_result(
            one, one.task.case, find_network(one, one.task.case), {"test_loss": float("nan")}
        )
    values: dict[str, Any] = one.storage.read_json(f"{one.task.case.folder}/result.json")
    return values


@pytest.mark.slow
def test_the_result_of_a_search_says_how_it_was_found(result: dict[str, Any]) -> None:
    assert (result["strategy"], result["objective"]) == ("evolution", "none")
    assert result["trials"]["number"] > 0
    assert result["expected_ms"] is None  # networks are compared, nothing is expected
    assert result["notes"] == []


@pytest.mark.slow
def test_the_result_of_a_search_has_no_field_that_its_type_does_not_have(
    result: dict[str, Any],
) -> None:
    assert result.keys() <= get_type_hints(Result).keys()


def test_the_ranking_stands_in_the_result(result: dict[str, Any]) -> None:
    assert result["ranking"].keys() == {"accuracy", "cross_entropy", "seconds", "networks"}
    assert result["rerank"] is None


def test_a_number_that_json_does_not_have_is_none(result: dict[str, Any]) -> None:
    assert result["test_loss"] is None
    json.dumps(result, allow_nan=False)


def test_on_a_target_with_a_table_that_ships_nothing_is_measured(
    dataset: Dataset, tmp_path: Path, measured: list[Model]
) -> None:
    cases = [{"target": "pixel1", "architecture": "proxyless_mobile"}]
    data = {"source": "digits", "resolution": 224}
    job = tiny_job(tmp_path, cases, space=IMAGENET, data=data)
    one = context_of(job, dataset, case="pixel1-proxyless_mobile")
    got = find_network(one, one.task.case)
    assert got.table_ms == pytest.approx(84.42, abs=0.01)
    assert (got.measured_ms, got.measured_spread, measured) == (None, None, [])
    values = result_of(one, one.task.case, got, {})
    assert values["hardware"] == one.target.hardware()
