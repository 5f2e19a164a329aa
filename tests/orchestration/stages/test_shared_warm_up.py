"""Searches that share a warm-up, and budgets that share a search, without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nas_core.batch import SearchData
from nas_core.objective import LatencyGoal
from nas_core.search import search_epochs, start_search
from nas_core.search_state import STRATEGIES
from nas_core.workers import SingleProcess
from orchestration.config.storage_layout import STAGE_END_FILE, search_folder, warmup_folder
from orchestration.data.dataset import Dataset
from orchestration.planning.cases import warmup_case
from orchestration.stages.context import WorkerContext
from orchestration.stages.find import find_network
from orchestration.stages.search import Searched, search, search_parts, warm_up
from orchestration.state.checkpoint_index import is_ended
from tests.support.worker_context import Reports, context_of, context_with, digits, tiny_job

TWO = [{"target": "mobile", "budgets_ms": ["80%", "110%", "130%"]}]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    return Reports(monkeypatch)


def context_for(dataset: Dataset, folder: Path, percent: int, **settings: Any) -> WorkerContext:
    """One worker with the case of one of three budgets."""
    job = tiny_job(folder, TWO, search=settings)
    budget = f"mobile-{percent / 100 * 0.08:.4g}ms"
    return context_of(job, dataset, case=budget)


def bits(found: Searched) -> str:
    """Digest of weights, statistics and alphas, equal for equal bits."""
    values = {name: value.tolist() for name, value in found.state.supernet.state_dict().items()}
    return json.dumps(values)


def phases(reports: Reports) -> list[str]:
    return [epoch["phase"] for epoch in reports.epochs]


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [
        "two_path",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("random", "reinforce", "darts")),
    ],
)
def test_a_search_equals_one_that_runs_on_from_its_own_warm_up_bit_for_bit(
    dataset: Dataset, tmp_path: Path, reports: Reports, strategy: str
) -> None:
    context = context_for(dataset, tmp_path, 110, strategy=strategy)
    job, parts = context.task.job, search_parts(context)
    state = start_search(context.space, job.search, job.seed, context.device)
    size = job.search.batch_size
    data = SearchData(
        weight=context.loader(parts[1], size, "search weights"),
        architecture=context.loader(parts[0], size, "search alphas", is_augmented=False),
    )
    goal = LatencyGoal(context.table, context.search_case.search_ms, torch.device("cpu"))
    list(search_epochs(state, data, goal, job.search, job.seed, SingleProcess()))
    result = search(context)
    assert bits(result) == bits(Searched(state, data, goal, []))
    assert result.state.trials == state.trials
    assert phases(reports)[0] == "warmup"


@pytest.mark.slow
def test_a_warm_up_is_trained_once_and_every_search_starts_from_it(
    dataset: Dataset, tmp_path: Path, reports: Reports
) -> None:
    alone = search(context_for(dataset, tmp_path / "alone", 80))
    reports.epochs.clear()
    first = context_for(dataset, tmp_path / "sweep", 110)
    key = first.task.case.warmup_key
    assert key is not None
    warm_up(context_with(first.task.job, dataset, warmup_case(key, seed=0), first.table))
    assert phases(reports) == ["warmup"]
    search(first)
    shared = search(context_for(dataset, tmp_path / "sweep", 80))
    assert phases(reports) == ["warmup", "search", "search", "search", "search"]
    assert bits(shared) == bits(alone)
    assert [item["phase"] for item in shared.history] == ["warmup", "search", "search"]


@pytest.mark.slow
def test_a_warm_up_whose_end_is_damaged_is_trained_again_from_before(
    dataset: Dataset, tmp_path: Path, reports: Reports
) -> None:
    settings = {"warmup_epochs": 2}
    whole = search(context_for(dataset, tmp_path / "whole", 110, **settings))
    context = context_for(dataset, tmp_path / "damaged", 110, **settings)
    folder = warm_up(context)
    assert folder is not None
    folder.write_bytes("00002-00000000/shared.pt", b"")
    reports.epochs.clear()
    result = search(context_for(dataset, tmp_path / "damaged", 110, **settings))
    assert phases(reports) == ["warmup", "search", "search"]
    assert bits(result) == bits(whole)


@pytest.mark.slow
def test_a_warm_up_belongs_to_no_job_and_no_target(
    dataset: Dataset, tmp_path: Path, reports: Reports
) -> None:
    search(context_for(dataset, tmp_path, 110))
    job = tiny_job(tmp_path, [{"target": "cpu", "budgets_ms": ["90%"]}], name="other")
    reports.epochs.clear()
    search(context_of(job, dataset))
    assert phases(reports) == ["search", "search"]


@pytest.mark.slow
def test_budgets_that_share_a_search_train_it_once(
    dataset: Dataset, tmp_path: Path, reports: Reports
) -> None:
    middle = context_for(dataset, tmp_path, 110, share="target")
    assert middle.task.case.hosts_search
    host = search(middle)
    trained = phases(reports)
    assert trained == ["warmup", "search", "search"]
    other = context_for(dataset, tmp_path, 80, share="target")
    assert not other.task.case.hosts_search
    shared = search(other)
    assert phases(reports) == trained
    assert bits(shared) == bits(host)
    assert is_ended(other.storage.sub(search_folder(str(other.task.case.search_key))))


@pytest.mark.slow
def test_each_budget_of_a_shared_search_gets_a_network_within_it(
    dataset: Dataset, tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.stages.derive.measured_together", lambda *_: None)
    result = {}
    for percent in (110, 80, 130):
        context = context_for(dataset, tmp_path, percent, share="target")
        result[percent] = find_network(context, context.task.case)
        assert (result[percent].table_ms or 9.0) <= percent / 100 * 0.08
    assert phases(reports) == ["warmup", "search", "search"]
    # The middle budget's network is that of a search of its own, with the same key.
    own = context_for(dataset, tmp_path / "own", 110)
    assert find_network(own, own.task.case).model == result[110].model
    shared = context_for(dataset, tmp_path, 110, share="target").task.case
    assert own.task.case.key == shared.key


def test_strategies_without_a_warm_up_have_none(
    dataset: Dataset, tmp_path: Path, reports: Reports
) -> None:
    assert "rl_trials" in STRATEGIES
    context = context_for(dataset, tmp_path, 110, strategy="rl_trials")
    assert context.task.case.warmup_key is None
    assert warm_up(context) is None
    key = context_for(dataset, tmp_path, 110, warmup_epochs=0).task.case.warmup_key
    assert key is None
    assert not reports.epochs


def test_the_end_of_a_warm_up_is_written_last(dataset: Dataset, tmp_path: Path) -> None:
    context = context_for(dataset, tmp_path, 110)
    key = str(context.task.case.warmup_key)
    folder = context.root.sub(warmup_folder(key))
    with pytest.MonkeyPatch.context() as patch:
        Reports(patch)
        warm_up(context)
    end = folder.read_json(STAGE_END_FILE)
    assert folder.exists(f"{end['checkpoint']}/rank-0.json")
    assert end["checkpoint"] == "00001-00000000"
