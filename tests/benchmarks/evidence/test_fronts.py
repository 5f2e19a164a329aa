"""Pareto fronts, against values worked out by hand."""

from __future__ import annotations

import pytest

from tests.benchmarks.evidence.fronts import Front, Network, speed_up

FRONT = Front.of([Network(4.0, 90.0), Network(1.0, 80.0), Network(2.0, 79.0), Network(16.0, 90.0)])


def test_a_network_that_is_slower_and_worse_is_not_on_the_front() -> None:
    assert [network.ms for network in FRONT.networks] == [1.0, 4.0]


@pytest.mark.parametrize(
    ("ms", "top1"),
    [(1.0, 80.0), (2.0, 85.0), (4.0, 90.0), (10.0, 90.0), (16.0, 90.0), (0.9, None), (17.0, None)],
)
def test_accuracy_within_a_latency(ms: float, top1: float | None) -> None:
    assert FRONT.top1_at(ms) == (top1 and pytest.approx(top1))


@pytest.mark.parametrize(
    ("top1", "ms"), [(80.0, 1.0), (85.0, 2.0), (90.0, 4.0), (79.9, None), (90.1, None)]
)
def test_latency_of_an_accuracy(top1: float, ms: float | None) -> None:
    assert FRONT.ms_at(top1) == (ms and pytest.approx(ms))


def test_speed_is_compared_at_the_highest_accuracy_that_both_reach() -> None:
    faster = Front.of([Network(0.5, 78.0), Network(1.0, 85.0)])
    assert speed_up(faster, FRONT) == pytest.approx(2.0)
    assert speed_up(FRONT, faster) == pytest.approx(0.5)


def test_who_is_better_with_the_fastest_network_is_taken_at_that() -> None:
    assert speed_up(Front.of([Network(2.0, 99.0), Network(9.0, 99.5)]), FRONT) == 2.0
    assert speed_up(FRONT, Front.of([Network(2.0, 99.0)])) == 0.5
