"""Rows of the ablations, on a made-up tabular benchmark."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.benchmarks import tabular
from tests.benchmarks.evidence import ablations
from tests.benchmarks.evidence.ablations import BASE, derivation, differences
from tests.benchmarks.truth import Truth

RISING = torch.arange(len(tabular.all_paths())).double()


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmark in which network i has an accuracy of i percent."""
    truth = Truth(torch.stack([RISING - 1, RISING + 1], 1), RISING + 1)
    monkeypatch.setattr(ablations, "_truth", lambda _target: truth)


def searched(network: int, seed: int, argmax: int = 0, argmax_ms: float = 1.0) -> dict[str, Any]:
    names = tabular.names()
    words = {"target": "cpu", "budget_ms": 10.0, "expected_ms": 9.0, "cost": 100, "seed": seed}
    return {**words, "path": names[network], "argmax": names[argmax], "argmax_ms": argmax_ms}


def test_a_variant_is_compared_with_the_base_by_seed() -> None:
    base = [searched(50, 0), searched(60, 0), searched(70, 1)]
    variant = [searched(52, 0), searched(62, 0), searched(74, 1)]
    first, second = differences({BASE: base, "other": variant})
    assert "points" not in first
    assert (second["top1"], second["n"]) == (65.5, 2)
    mean, low, high = second["points"]
    assert mean == pytest.approx(3.0)
    assert low < 3.0 < high
    assert second["expected_ms / budget, largest"] == 0.9


def test_most_probable_ops_break_budgets() -> None:
    said = derivation(
        [searched(50, 0, 90, 12.0), searched(50, 1, 90, 11.0), searched(50, 2, 40, 9.0)]
    )
    assert (said["searches"], said["over the budget"]) == (3, 2)
    assert said["largest excess"] == pytest.approx(0.2)


def test_variants_change_one_thing_each_and_differ() -> None:
    assert all(len(changes) == 1 for name, changes in ablations.CHANGES.items() if name != BASE)
    assert len({str(changes) for changes in ablations.CHANGES.values()}) == len(ablations.CHANGES)
