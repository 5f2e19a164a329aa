"""The best network on each target, against a synthetic sweep that was evaluated by hand."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.reports.cross_target import Matrix, Specialized, grouped, marked_best


def network(name: str, asked: str | None, own: str, **latencies_ms: Any) -> Specialized:
    return Specialized(name=name, asked=asked, own=own, top1=0.98, latencies_ms=latencies_ms)


CPU_80 = network("cpu-80", "80%", "cpu", cpu=0.19, mobile=0.22)
MOBILE_80 = network("mobile-80", "80 %", "mobile", cpu=0.24, mobile=0.17)
CPU_100 = network("cpu-100", "100%", "cpu", cpu=0.23, mobile=0.16)
MOBILE_60 = network("mobile-60", "60%", "mobile", cpu=0.15, mobile=0.09)
REFERENCE = network("mobile-reference", None, "mobile", cpu=0.25, mobile=0.21)


def matrix(*networks: Specialized) -> Matrix:
    return Matrix(("cpu", "mobile"), networks)


def test_networks_of_several_targets_asked_for_alike_are_a_group_and_all_others_the_last() -> None:
    groups = grouped(matrix(MOBILE_60, CPU_80, CPU_100, REFERENCE, MOBILE_80))
    assert [(group.asked, [item.name for item in group.networks]) for group in groups] == [
        ("80%", ["cpu-80", "mobile-80"]),
        (None, ["mobile-60", "cpu-100", "mobile-reference"]),
    ]


def test_words_that_only_one_target_was_asked_for_are_no_group() -> None:
    again = network("cpu-80-seed1", "80%", "cpu", cpu=0.18)
    assert [group.asked for group in grouped(matrix(CPU_80, again))] == [None]


def test_the_fastest_on_a_target_is_marked_within_its_group() -> None:
    # cpu-100 and mobile-60 are faster on both targets, but have other budgets.
    result = marked_best(matrix(CPU_80, MOBILE_80, CPU_100, MOBILE_60))
    assert result == {("cpu-80", "cpu"), ("mobile-80", "mobile")}


def test_a_network_may_be_the_best_on_a_target_that_is_not_its_own() -> None:
    slow = network("mobile-80", "80%", "mobile", cpu=0.24, mobile=0.23)
    assert marked_best(matrix(CPU_80, slow)) == {("cpu-80", "cpu"), ("cpu-80", "mobile")}


def test_equally_fast_networks_are_all_the_best() -> None:
    level = network("mobile-80", "80%", "mobile", cpu=0.19, mobile=0.2)
    assert marked_best(matrix(CPU_80, level)) >= {("cpu-80", "cpu"), ("mobile-80", "cpu")}


@pytest.mark.parametrize("missing", [{}, {"cpu": None}])
def test_what_compares_with_nothing_is_not_marked(missing: dict[str, None]) -> None:
    alone = network("mobile-80", "80%", "mobile", mobile=0.17, **missing)
    assert marked_best(matrix(CPU_80, alone)) == {("mobile-80", "mobile")}


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), float("inf")])
def test_a_latency_that_is_none_is_refused(ms: float) -> None:
    with pytest.raises(ValueError, match=r"'a' takes .* ms on 'cpu'; expected a number greater"):
        matrix(network("a", "80%", "cpu", cpu=ms))


def test_a_name_stands_there_once() -> None:
    with pytest.raises(ValueError, match=r"has the networks .* expected each name once"):
        matrix(CPU_80, CPU_80)
    with pytest.raises(ValueError, match=r"has the targets .* expected each name once"):
        Matrix(("cpu", "cpu"), (CPU_80,))


def test_a_matrix_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has the networks \[\]"):
        matrix()
