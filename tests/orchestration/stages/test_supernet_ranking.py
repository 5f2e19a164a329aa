"""The ranking of a case: on request, stored network by network, resumed after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from orchestration.data.dataset import Dataset
from orchestration.stages import supernet_ranking
from orchestration.stages.context import WorkerContext
from orchestration.stages.search import Searched, search
from orchestration.stages.supernet_ranking import measured_ranking
from tests.support.worker_context import Reports, context_of, digits, tiny_job


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reports:
    return Reports(monkeypatch)


def searched(dataset: Dataset, storage: Path, networks: int) -> tuple[WorkerContext, Searched]:
    settings = {"ranking_networks": networks, "epochs": 1}
    context = context_of(tiny_job(storage, search=settings), dataset)
    return context, search(context)


def without_clock(found: dict[str, Any] | None) -> dict[str, Any]:
    assert found is not None
    networks = [{k: v for k, v in item.items() if k != "seconds"} for item in found["networks"]]
    return {**found, "networks": networks, "seconds": None}


@pytest.mark.slow
def test_nobody_asked_for_a_ranking(dataset: Dataset, reports: Reports, tmp_path: Path) -> None:
    assert measured_ranking(*searched(dataset, tmp_path, networks=0)) is None
    assert reports.networks == []


@pytest.mark.slow
def test_every_network_is_reported_and_counted(
    dataset: Dataset, reports: Reports, tmp_path: Path
) -> None:
    result = measured_ranking(*searched(dataset, tmp_path, networks=3))
    assert result is not None
    assert len(result["networks"]) == 3
    assert [(network["epoch"], network["epochs"]) for network in reports.networks] == [
        (0, 3),
        (1, 3),
        (2, 3),
    ]
    for by in ("accuracy", "cross_entropy"):
        assert -1 <= result[by]["spearman"] <= 1
        assert -1 <= result[by]["kendall"] <= 1


@pytest.mark.slow
def test_a_ranking_that_was_stopped_goes_on_with_the_next_network(
    dataset: Dataset, reports: Reports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measured_ranking(*searched(dataset, tmp_path / "whole", networks=3))
    context, end = searched(dataset, tmp_path / "stopped", networks=3)
    with monkeypatch.context() as patch:
        patch.setattr(supernet_ranking, "_report", die_after(2))
        with pytest.raises(KeyboardInterrupt):
            measured_ranking(context, end)
    reports.networks.clear()
    assert without_clock(measured_ranking(context, end)) == without_clock(whole)
    assert [network["epoch"] for network in reports.networks] == [2]


def die_after(networks: int) -> Any:
    def report(_context: WorkerContext, done: list[Any], _steps: int) -> None:
        if len(done) == networks:
            raise KeyboardInterrupt

    return report


@pytest.mark.slow
def test_a_ranking_of_another_case_does_not_count(
    dataset: Dataset, reports: Reports, tmp_path: Path
) -> None:
    context, end = searched(dataset, tmp_path, networks=2)
    place = f"{context.task.case.folder}/ranking.json"
    foreign = {"format": "ranking/1", "key": "another", "networks": [{"path": [0, 0]}] * 2}
    Storage(str(tmp_path)).sub("tiny").write_json(place, foreign)
    measured_ranking(context, end)
    assert len(reports.networks) == 2


def test_a_loss_that_is_no_number_is_kept_and_read_back() -> None:
    values = {"path": [0, 1], "supernet_accuracy": 0.1, "supernet_loss": None}
    values |= {"alone_accuracy": 0.5, "alone_loss": 1.5, "seconds": 2.0}
    assert supernet_ranking.Ranked.from_dict(values).to_dict() == values
