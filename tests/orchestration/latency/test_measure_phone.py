"""Measurements on a phone that throttles are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.hardware import TARGETS
from cluster.placement import Node
from cluster.runtimes.base import MeasurementError, ProgramError
from cluster.runtimes.timing import Timing
from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.latency import op_signatures
from nas_core.settings import MeasureSettings
from nas_core.space import proxyless_small
from orchestration.latency import build_table, measurement_setup, network
from orchestration.latency.measurement_setup import MeasurementSetup
from orchestration.latency.row_store import RowStore
from orchestration.programs.timing_workers import Program
from tests.support.latency_tables import by_kernel, table_of

SPACE = proxyless_small(resolution=16)
TABLE = table_of(SPACE, by_kernel)
PHONE = replace(TARGETS["mobile"], name="pixel")
SETTINGS = MeasureSettings()
NODE = Node(id="", host="here", resources={}, labels={}, is_driver=True)
PROGRAM = Program(b"", (1, 1, 16, 16))


def timing(ms: float = 1.0, rise: float = 1.0) -> Timing:
    return Timing(median_ms=ms, p10_ms=ms, p90_ms=ms, spread=0.0, rise=rise, count=15)


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> list[list[Timing]]:
    """Timings that the phone returns, call by call."""
    answers: list[list[Timing]] = []

    def lower(_space: Any, _target: Any, subjects: list[Any]) -> list[Program]:
        return [PROGRAM] * len(subjects)

    def timed(programs: list[Program], *_: Any) -> list[Timing]:
        result = answers.pop(0)
        assert len(result) == len(programs)
        return result

    for module in (measurement_setup, network):
        monkeypatch.setattr(module, "lower", lower)
        monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(network, "node_of", lambda *_: NODE)
    return answers


def test_a_group_whose_later_rounds_are_slower_is_refused(timings: list[list[Timing]]) -> None:
    setup = MeasurementSetup(SPACE, PHONE, SETTINGS, NODE)
    timings.append([timing(rise=1.2), timing(rise=1.2), timing(0.1)])
    with pytest.raises(MeasurementError, match=r"the phone throttles.*targets.pixel.phone.cool"):
        setup.timed_with_empty(op_signatures(SPACE)[:2], 5)


def test_a_group_that_is_slower_than_the_first_is_refused_and_the_first_is_kept(
    timings: list[list[Timing]], tmp_path: Any
) -> None:
    setup, store = (
        MeasurementSetup(SPACE, PHONE, SETTINGS, NODE),
        RowStore(Storage(str(tmp_path)), "key", {}),
    )
    one, two = op_signatures(SPACE)[:2]
    timings += [[timing(5.1), timing(), timing(0.1)], [timing(5.7), timing(), timing(0.1)]]
    build_table._measure_group(setup, store, [one])
    with pytest.raises(MeasurementError, match="takes 12% more than at the beginning; let it cool"):
        build_table._measure_group(setup, store, [two])
    assert [row.part for row in store.rows] == [one]


def test_a_host_that_is_slower_is_not_refused(timings: list[list[Timing]], tmp_path: Any) -> None:
    setup = MeasurementSetup(SPACE, TARGETS["cpu"], SETTINGS, NODE)
    store = RowStore(Storage(str(tmp_path)), "key", {})
    one, two = op_signatures(SPACE)[:2]
    timings += [[timing(5.1), timing(1.1), timing(0.1)], [timing(7.6), timing(1.6), timing(0.1)]]
    build_table._measure_group(setup, store, [one])
    build_table._measure_group(setup, store, [two])
    assert [row.median_ms for row in store.rows] == pytest.approx([1.0, 1.0])


def test_a_part_that_is_timed_again_is_not_lowered_again(
    timings: list[list[Timing]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lowered: list[Any] = []

    def lower(_space: Any, _target: Any, subjects: list[Any]) -> list[Program]:
        lowered.extend(subjects)
        return [Program(str(subject).encode(), (1, 1, 16, 16)) for subject in subjects]

    monkeypatch.setattr(measurement_setup, "lower", lower)
    setup = MeasurementSetup(SPACE, TARGETS["cpu"], SETTINGS, NODE)
    one, two, three = op_signatures(SPACE)[:3]
    timings += [[timing()] * 3, [timing()] * 4]
    setup.timed_with_empty([one, two], 5)
    setup.timed_with_empty([two, three, one], 5)
    assert lowered == [one, two, None, three]
    assert [program.code for program in setup.programs([three, one])] == [
        str(three).encode(),
        str(one).encode(),
    ]


def test_parts_are_kept_where_the_network_beside_them_is_what_fails(
    timings: list[list[Timing]], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lower(_space: Any, _target: Any, subjects: list[Any]) -> list[Program]:
        if any(isinstance(subject, Architecture) for subject in subjects):
            raise ProgramError("it crashes")
        return [PROGRAM] * len(subjects)

    monkeypatch.setattr("orchestration.latency.measurement_setup.lower", lower)
    setup = MeasurementSetup(SPACE, PHONE, SETTINGS, NODE)
    store = RowStore(Storage(str(tmp_path)), "key", {})
    timings += [[timing(1.1), timing(0.1)], [timing(2.1), timing(0.1)]]
    assert build_table._measure_group(setup, store, op_signatures(SPACE)[:2]) == []
    assert [row.median_ms for row in store.rows] == pytest.approx([1.0, 2.0])


def test_a_derived_network_is_not_timed_on_a_phone_that_throttles(
    timings: list[list[Timing]],
) -> None:
    timings.append([timing(rise=1.3), timing(rise=1.3), timing(0.1)])
    with pytest.raises(MeasurementError, match="the phone throttles"):
        network.measure_program(PROGRAM, TABLE, PHONE, SETTINGS)


@pytest.mark.parametrize(
    ("calls_ms", "budget_ms", "expected"),
    [
        ([0.5], 0.49, 0.5),  # within the tolerance of 5 %
        ([0.6, 0.5], 0.5, 0.55),
        ([0.6, 0.7], 0.5, 0.65),
        ([0.6], None, 0.6),
    ],
)
def test_a_network_that_misses_its_budget_is_timed_once_more_and_the_mean_counts(
    timings: list[list[Timing]], calls_ms: list[float], budget_ms: float | None, expected: float
) -> None:
    then = TABLE.reference_ms
    assert then is not None
    timings += [[timing(ms + 0.1), timing(then + 0.1), timing(0.1)] for ms in calls_ms]
    result = network.measure_program(PROGRAM, TABLE, PHONE, SETTINGS, budget_ms)
    assert result.ms == pytest.approx(expected)
    assert timings == []
