"""Reranking by supernet score: only if the rank correlation is high enough; always reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nas_core.derive import best_within, k_best_within
from nas_core.objective import LatencyGoal
from nas_core.search_settings import SearchSettings
from orchestration.data.dataset import Dataset
from orchestration.latency.network import Measured
from orchestration.stages.candidate import Candidate
from orchestration.stages.derive import Reranking, derive, search_facts
from orchestration.stages.search import Searched, search
from tests.support.worker_context import OneWorker, Reports, context_of, digits, tiny_job

RANKED = {"accuracy": {"spearman": 0.7, "kendall": 0.5}}
RANKED["cross_entropy"] = {"spearman": 0.3, "kendall": 0.2}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        Reports(patch)
        return search(context_of(tiny_job(folder), dataset))


def reranking(
    finished: Searched, ranking: dict[str, Any] | None = RANKED, **settings: Any
) -> Reranking:
    asked = SearchSettings(**{"ranking_networks": 9, "rerank": 4, "bn_images": 128, **settings})
    return Reranking(finished, finished.needed_goal.budget_ms, asked, ranking, OneWorker())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "used", "reason"),
    [
        ({"scored_by": "accuracy"}, True, "the supernet's Spearman of 0.70 reaches 0.5"),
        ({"scored_by": "cross_entropy"}, False, "the supernet's Spearman of 0.30 is below 0.5"),
        ({"rerank_min_spearman": 0.8}, False, "the supernet's Spearman of 0.70 is below 0.8"),
        (
            {"scored_by": "cross_entropy", "rerank_min_spearman": 0.0},
            True,
            "requested unconditionally (rerank_min_spearman 0)",
        ),
    ],
)
def test_the_ranking_decides_whether_it_is_used(
    finished: Searched, settings: dict[str, Any], used: bool, reason: str
) -> None:
    facts = reranking(finished, **settings).facts()
    assert facts is not None
    assert (facts["used"], facts["reason"]) == (used, reason)


def test_nothing_is_said_where_nobody_asked(finished: Searched) -> None:
    assert reranking(finished, rerank=0).facts() is None


def test_the_best_score_among_the_most_probable_networks_is_taken(finished: Searched) -> None:
    one = reranking(finished)
    table, budget_ms = finished.goal.table, finished.goal.budget_ms
    chosen = one.choose(table)
    likely = k_best_within(finished.state.supernet.log_probs(), table, budget_ms, 4)
    facts = one.facts()
    assert facts is not None
    assert [tuple(c["ops"]) for c in facts["candidates"]] == [a.ops for a in likely]
    best = max(facts["candidates"], key=lambda c: c["top1"])
    assert list(chosen.ops) == best["ops"]
    assert all(c["table_ms"] <= budget_ms for c in facts["candidates"])


def test_scoring_leaves_the_supernet_as_it_was(finished: Searched) -> None:
    before = {name: v.clone() for name, v in finished.state.supernet.state_dict().items()}
    reranking(finished).choose(finished.goal.table)
    assert all(v.equal(before[n]) for n, v in finished.state.supernet.state_dict().items())


def derived(dataset: Dataset, folder: Path, **settings: Any) -> Candidate:
    """Run a complete case whose latencies come from the table instead of a measurement."""
    with pytest.MonkeyPatch.context() as patch:
        Reports(patch)
        context = context_of(tiny_job(folder, search=settings), dataset)
        table = context.task.table

        def measured(_context: Any, model: Any, _budget_ms: float) -> Measured:
            return Measured(table.latency_ms(model), 0.0, 1.0)

        patch.setattr("orchestration.stages.derive.measured_together", measured)
        return derive(context, search(context))


@pytest.mark.slow
def test_a_derivation_without_it_takes_the_most_probable_network(
    dataset: Dataset, finished: Searched, tmp_path: Path
) -> None:
    result = derived(dataset, tmp_path)
    likely = best_within(
        finished.state.supernet.log_probs(), finished.goal.table, finished.goal.budget_ms
    )
    assert result.model == likely
    assert result.search["rerank"] is None
    assert result.search["ranking"] is None


@pytest.mark.slow
def test_a_derivation_says_what_it_did(dataset: Dataset, tmp_path: Path) -> None:
    result = derived(dataset, tmp_path, rerank=3, rerank_min_spearman=-1.0, ranking_networks=2)
    assert result.search["rerank"]["used"]
    assert len(result.search["rerank"]["candidates"]) == 3
    assert len(result.search["ranking"]["networks"]) == 2


def test_a_strategy_that_scored_networks_is_not_reranked(dataset: Dataset, tmp_path: Path) -> None:
    settings = {"strategy": "random", "rerank": 3, "rerank_min_spearman": 0.0}
    result = derived(dataset, tmp_path, **settings)
    assert result.search["rerank"]["reason"] == (
        "strategy 'random' takes the best network it scored"
    )
    best = result.search["trials"]["best"]
    assert list(result.model.ops) == best[0]["ops"]
    assert [item["score"] for item in best] == sorted(
        (item["score"] for item in best), reverse=True
    )


def test_a_penalty_that_was_too_weak_is_noted(finished: Searched, tmp_path: Path) -> None:
    expected = float(finished.goal.expected_ms(finished.state.supernet.probs()))
    goal = LatencyGoal(finished.goal.table, 0.5 * expected, torch.device("cpu"))
    end = Searched(finished.state, finished.data, goal, [])
    facts = search_facts(end, SearchSettings(objective="absolute"))
    assert facts["expected_ms"] == pytest.approx(expected)
    (note,) = facts["notes"]
    assert "+100% from the budget" in note
    assert "the penalty was too weak" in note
