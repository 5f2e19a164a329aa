"""Summaries of searches on a made-up tabular benchmark, and very short searches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas_core.search import alphas_digest
from nas_core.search_settings import SearchSettings
from tests.benchmarks import search_quality, searching, tabular
from tests.benchmarks.search_quality import Job, controls, grouped, summary
from tests.benchmarks.truth import Truth, truth_of
from tests.support.tiny import noisy_table

pytestmark = pytest.mark.slow

COUNT = len(tabular.all_paths())
RISING = torch.arange(COUNT).double()
TRUTH = Truth(torch.stack([RISING - 1, RISING + 1], 1), RISING + 1)
"""Ground truth in which slower is better: network i has i percent and takes i + 1 ms."""
SHORT = SearchSettings(
    batch_size=64, architecture_share=0.2, warmup_epochs=1, epochs=2, alpha_every=2, bn_images=64
)


def found(network: int, seed: int, budget_ms: float = 100.0) -> dict[str, Any]:
    """Result line of a search that ended with this network."""
    return {
        "target": "cpu",
        "strategy": "two_path",
        "objective": "learnt",
        "budget_ms": budget_ms,
        "seed": seed,
        "path": tabular.names()[network],
        "table_ms": network + 1.0,
        "cost": 1250,
        "settings": {"strategy": "two_path"},
        "scores": [(0.5, -float(tabular.all_paths().index(p))) for p in RANKED],
    }


RANKED = search_quality.ranked_paths()


def test_a_summary_says_how_far_networks_are_from_the_best() -> None:
    said = summary([found(99, 0), found(89, 1)], TRUTH)  # 100 networks are within 100 ms
    assert (said["accuracy"], said["regret"]) == (94.0, 5.0)
    assert said["median rank"] == pytest.approx(0.05)
    assert said["of the budget"] == 1.0
    assert said["Spearman"] == 1.0
    assert said["gain"]["slowest"][0] == -5.0


def test_gains_have_an_interval_over_seeds() -> None:
    said = summary([found(99, 0), found(98, 1), found(97, 2)], TRUTH)
    mean, low, high = said["gain"]["random"]  # of the networks of 90 to 100 ms
    assert mean == pytest.approx(98 - 94)
    assert (low, high) == pytest.approx((mean - 2.48, mean + 2.48), abs=0.01)  # 4.303 / sqrt(3)


def test_random_selection_from_the_same_supernets_is_paired_by_seed() -> None:
    random = [found(90, 0) | {"strategy": "random"}, found(60, 1) | {"strategy": "random"}]
    lines = [found(99, 0), found(70, 1)]
    said = summary(lines, TRUTH, [*lines, *random, found(5, 0, budget_ms=50.0)])
    mean, low, high = said["gain"]["random selection"]
    assert mean == pytest.approx((9 + 10) / 2)
    assert high - low == pytest.approx(2 * 12.706 / 2, abs=0.01)  # Student's, of 9 and 10
    assert "random selection" not in summary(lines, TRUTH, random[:1])["gain"]
    assert "random selection" not in summary(random, TRUTH, random)["gain"]


def test_found_networks_are_compared_with_their_measured_latency(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = {name: 2.0 * place for place, name in enumerate(tabular.names())}
    monkeypatch.setattr(tabular, "measured_ms", {"cpu": times}.__getitem__)
    assert summary([found(50, 0), found(49, 1)], TRUTH)["measured"] == 1.0  # the largest, of 100 ms


def test_controls_are_feasible_networks() -> None:
    aside = controls(TRUTH, 100.0, cost=search_quality.TRAINING_STEPS)
    assert aside["slowest"] == 99.0
    assert aside["random"] == pytest.approx(94.0)
    assert aside["best of N"] == pytest.approx(49.5, abs=1.0)  # the cost of one training
    macs = [tabular.network_of(path).macs() for path in tabular.all_paths()[:100]]
    assert aside["most MACs"] == float(macs.index(max(macs)))
    assert aside["uniform"] == tabular.all_paths().index((1, 1, 1, 1))


def test_lines_that_differ_in_their_seed_belong_together() -> None:
    lines = [found(1, 0), found(2, 0, 50.0), found(3, 1)]
    assert [[item["seed"] for item in group] for group in grouped(lines)] == [[0, 1], [0]]


def test_searches_of_other_settings_or_seeds_are_others() -> None:
    jobs = [Job("cpu", 0, 0), Job("cpu", 0, 1), Job("cpu", 1, 0), Job("mobile", 0, 0)]
    jobs.append(Job("cpu", 0, 0, replace(search_quality.SCHEDULE, epochs=17)))
    assert len({job.key() for job in jobs}) == len(jobs)
    assert Job("cpu", 0, 0).key() == jobs[0].key()


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tabular benchmark with 400 images."""
    few = replace(tabular.DATA, glyphs=replace(tabular.DATA.glyphs, train=400, test=400))
    monkeypatch.setattr(tabular, "DATA", few)
    caches = (tabular.dataset, searching.parts, searching.warmed_up)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize("strategy", ["two_path", "reinforce", "darts", "random"])
def test_searches_share_a_warm_up_and_end_within_the_budget(strategy: Any) -> None:
    table = noisy_table(tabular.SPACE, seed=3)
    budget_ms = sum(table.range_ms()) / 2
    settings = replace(SHORT, strategy=strategy)
    start = searching.warmed_up(searching.warm_up_of(settings), seed=0).state
    before = alphas_digest(start.supernet)
    ends = [searching.searched(settings, table, budget_ms, seed=0) for _ in range(2)]
    assert before == alphas_digest(start.supernet)
    assert start.epoch == 1
    assert ends[0][1].path == ends[1][1].path
    assert ends[0][1].table_ms <= budget_ms
    assert ends[0][1].cost > start.epoch * 5  # steps of the warm-up, and those of the search
    assert ends[0][0].epoch == 3


@pytest.mark.usefixtures("few_images")
def test_a_derivation_can_choose_by_the_supernet() -> None:
    table, seed = noisy_table(tabular.SPACE, seed=3), 0
    settings = replace(SHORT, rerank=COUNT, rerank_min_spearman=0, scored_by="cross_entropy")
    budget_ms = sum(table.range_ms()) / 2
    state, end = searching.searched(settings, table, budget_ms, seed)
    within = [
        path
        for path in tabular.all_paths()
        if table.latency_ms(tabular.network_of(path)) <= budget_ms
    ]
    scores = searching.supernet_scores(state, settings, seed, within)
    assert end.path == min(zip(scores, within, strict=True), key=lambda item: item[0].loss)[1]


def test_searches_find_better_networks_than_chance(tmp_path: Path) -> None:
    """Searches beat random networks of equal latency: tuning seeds, middle budget on `cpu`."""
    settings = replace(search_quality.SCHEDULE, strategy="two_path")
    jobs = [Job("cpu", 1, seed, settings) for seed in (0, 1)]
    lines = search_quality.run_missing(jobs, processes=2, file=tmp_path / "runs.jsonl")
    said = summary(lines, truth_of("cpu"))
    assert said["accuracy"] > said["controls"]["random"]
    assert said["of the budget"] <= 1.0
    again = search_quality.run_missing(jobs, processes=2, file=tmp_path / "runs.jsonl")
    assert again == lines  # nothing was searched twice
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2
