"""Differences between networks with `settle_pairs` on and off."""

from __future__ import annotations

import pytest

from tests.benchmarks.evidence.networks import Trained
from tests.benchmarks.evidence.settled_pairs import differences


def found(budget: str, seed: int, top1: float) -> Trained:
    return Trained("search", "cpu-case", "cpu", budget, 0.1, seed, top1, {}, 0.0, 0.0, 0.0, ())


def test_each_budget_is_compared_from_seed_to_seed() -> None:
    base = [found("35%", 0, 94.0), found("35%", 1, 95.0), found("50%", 0, 96.0)]
    base += [found("50%", 1, 96.0)]
    other = [found("50%", 1, 95.0), found("50%", 0, 96.0), found("35%", 1, 95.5)]
    other += [found("35%", 0, 94.7)]
    tight, wide = differences(base, other)
    assert tight["what"] == "pairs settled, cpu, budget 35%"
    assert (tight["top1"], tight["top1, not settled"], tight["n"]) == (95.1, 94.5, 2)
    assert tight["points"][0] == pytest.approx(0.6)
    assert wide["points"][0] == pytest.approx(-0.5)
    assert wide["points"][1] < -0.5 < wide["points"][2]
