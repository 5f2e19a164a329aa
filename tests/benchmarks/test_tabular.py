"""Space of the tabular benchmark, and digests that tell its trainings apart."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestration.data.loading import load_dataset
from tests.benchmarks import tabular
from tests.benchmarks.tabular import Recipe, all_paths, digest, network_of, trained_alone
from tests.benchmarks.truth import signal, truth_of


def test_every_network_of_the_space_is_there_once() -> None:
    paths = all_paths()
    assert len({network_of(path) for path in paths}) == len(paths) == tabular.SPACE.size() == 192


@pytest.mark.slow
def test_trainings_of_another_recipe_or_version_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest()
    assert digest() == first
    monkeypatch.setattr(tabular, "RECIPE", replace(tabular.RECIPE, epochs=6))
    other = digest()
    monkeypatch.setattr(tabular, "VERSION", tabular.VERSION + 1)
    assert len({first, other, digest()}) == 3


@pytest.mark.slow
def test_a_training_is_the_same_again_and_another_from_another_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = replace(tabular.DATA, glyphs=replace(tabular.DATA.glyphs, train=160, test=160))
    images = load_dataset(few, seed=0)
    monkeypatch.setattr(tabular, "dataset", lambda: images)
    quick = Recipe(epochs=1)
    path = (0, 3, 1, 3)
    first, again, other = (trained_alone(path, seed, quick) for seed in (0, 0, 1))
    assert first == again != other
    assert first.count == 160


@pytest.mark.slow
def test_the_kept_table_is_that_of_this_benchmark_and_tells_networks_apart() -> None:
    facts = json.loads(tabular.place("-latency.json").read_text())
    for target in ("cpu", "mobile"):
        truth = truth_of(target)
        assert not truth.first(2).accuracy.isnan().any()
        assert facts[target]["digest"] == digest()
        assert signal(truth.first(2)).ratio >= 2
        assert float(truth.latency_ms.max() / truth.latency_ms.min()) >= 3
        for budget_ms in tabular.latency(target)[1]:
            assert int(truth.near(budget_ms).sum()) >= 7
            best = truth.mean()[truth.feasible(budget_ms)].argmax()
            assert not truth.accuracy[truth.feasible(budget_ms)][best].isnan().any()
