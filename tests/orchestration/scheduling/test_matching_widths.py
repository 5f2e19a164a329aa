"""Matched-width baselines: few measurements, stored latencies, one case per budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest

from cluster.runtimes.base import MeasurementError
from cluster.storage import Storage
from nas_core.baselines.registry import for_space
from nas_core.latency import LatencyTable
from orchestration.config.loading import SpecError
from orchestration.driver import pipeline
from orchestration.planning.case import Case
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import Plan, make_plan
from orchestration.scheduling import matching_widths
from orchestration.scheduling.matching_widths import (
    WIDTHS,
    MatchedWidths,
    are_matched_widths_known,
    matched_width_cases,
    measure_widths,
    nearest_width,
    width_name,
)
from tests.support.latency_tables import by_kernel, table_of
from tests.support.worker_context import tiny_job

BUDGETS = [{"target": "mobile", "budgets_ms": ["80%", "110%", "130%"]}]  # 0.064, 0.088, 0.104 ms


def ms_of(width: float) -> float:
    """Latency model: 0.02 ms plus 0.1 ms times the square of the width."""
    return 0.02 + 0.1 * width**2


class Job:
    """A job with searches, and a record of the widths measured for it."""

    def __init__(self, storage: Path, cases: list[dict[str, Any]], **sections: Any) -> None:
        self.plan = make_plan(tiny_job(storage, cases, **{"controls": True, **sections}))
        self.storage = Storage(str(storage))
        self.tables = {
            target.name: table_of(self.plan.space, by_kernel) for target in self.plan.targets
        } | self.plan.shipped
        self.cases = cases_of(self.plan, self.tables)
        self.words = (self.plan, self.cases, self.tables, self.storage)

    def measure(self) -> None:
        measure_widths(*self.words, lambda _: None)

    def controls(self) -> list[Case]:
        return matched_width_cases(*self.words)

    def names(self) -> list[str]:
        return [case.name for case in self.controls()]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Widths in the order in which they were measured."""
    seen: list[float] = []

    @contextmanager
    def clock_of(
        _plan: Plan, _target: Any, _table: LatencyTable, _say: Any
    ) -> Iterator[Callable[[float], float]]:
        def clock(width: float) -> float:
            seen.append(width)
            return ms_of(width)

        yield clock

    monkeypatch.setattr(matching_widths, "clock_of", clock_of)
    return seen


@pytest.mark.parametrize("budget_ms", [0.001, 0.02, 0.03, 0.05, 0.064, 0.088, 0.1, 0.15, 0.2, 9.0])
def test_the_nearest_width_is_that_of_all_widths(budget_ms: float) -> None:
    asked = []

    def clock(width: float) -> float:
        asked.append(width)
        return ms_of(width)

    expected = min(WIDTHS, key=lambda width: abs(log(ms_of(width)) - log(budget_ms)))
    assert nearest_width(budget_ms, clock) == expected
    assert len(set(asked)) <= 4


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_is_a_baseline(width: float) -> None:
    assert for_space(width_name(width), table_of_tiny().space).num_params() > 0


def table_of_tiny() -> LatencyTable:
    return table_of(make_plan(tiny_job(Path("unused"))).space, by_kernel)


def test_every_budget_has_the_width_nearest_to_it(tmp_path: Path, measured: list[float]) -> None:
    job = Job(tmp_path, BUDGETS)
    assert job.names() == []
    assert not are_matched_widths_known(*job.words)
    job.measure()
    # 0.02 + 0.1 w**2: 0.045 and 0.076 ms lie around 0.064, then 0.120 above 0.088 and 0.104.
    assert job.names() == ["mobile-mobilenet_v2_0.75", "mobile-mobilenet_v2"]
    assert are_matched_widths_known(*job.words)
    assert {case.kind for case in job.controls()} == {"baseline"}


def test_no_width_is_measured_twice(tmp_path: Path, measured: list[float]) -> None:
    job = Job(tmp_path, BUDGETS)
    job.measure()
    assert len(measured) == len(set(measured)) < len(WIDTHS)
    before = list(measured)
    Job(tmp_path, BUDGETS, name="other").measure()
    assert measured == before


def test_latencies_beside_another_table_do_not_count(tmp_path: Path) -> None:
    storage, table = Storage(str(tmp_path)), table_of_tiny()
    MatchedWidths(storage, "key", table).measure(0.05, ms_of)
    assert MatchedWidths(storage, "key", table).nearest(0.05) == 0.5
    other = replace(table, reference_ms=2 * (table.reference_ms or 0.0))
    assert MatchedWidths(storage, "key", other).nearest(0.05) is None


def test_it_is_the_case_that_a_job_would_name_itself(tmp_path: Path, measured: list[float]) -> None:
    entry = {"target": "mobile", "baseline": "mobilenet_v2_0.75"}
    job = Job(tmp_path, [BUDGETS[0], entry])
    job.measure()
    assert job.names() == ["mobile-mobilenet_v2"]
    drawn = Job(tmp_path, BUDGETS).controls()[0]
    assert drawn == next(case for case in job.cases if case.name == drawn.name)


def test_every_seed_has_its_own(tmp_path: Path, measured: list[float]) -> None:
    cases = [{"target": "mobile", "budgets_ms": ["80%"]}]
    job = Job(tmp_path, cases, seeds=[0, 1])
    job.measure()
    assert job.names() == ["mobile-mobilenet_v2_0.75", "mobile-mobilenet_v2_0.75-seed1"]
    assert [case.seed for case in job.controls()] == [0, 1]


def test_a_target_that_is_not_measured_has_none(tmp_path: Path, measured: list[float]) -> None:
    job = Job(
        tmp_path,
        [{"target": "pixel1", "budgets_ms": [80.0]}],
        space={"name": "proxyless_imagenet"},
        data={"source": "digits", "resolution": 224},
    )
    job.measure()
    assert (job.names(), measured) == ([], [])
    assert are_matched_widths_known(*job.words)


def test_without_controls_nothing_is_measured(tmp_path: Path, measured: list[float]) -> None:
    job = Job(tmp_path, BUDGETS, controls=False)
    job.measure()
    assert (job.names(), measured) == ([], [])
    assert are_matched_widths_known(*job.words)


def test_a_target_that_cannot_be_measured_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def clock_of(*_: Any) -> Iterator[Any]:
        raise MeasurementError("the phone is gone")
        yield

    monkeypatch.setattr(matching_widths, "clock_of", clock_of)
    with pytest.raises(SpecError, match="the phone is gone"):
        Job(tmp_path, BUDGETS).measure()


def test_the_plan_of_a_job_finds_them_from_what_was_measured(
    tmp_path: Path, measured: list[float]
) -> None:
    job = Job(tmp_path, BUDGETS)
    job.measure()
    key = job.plan.table_keys["mobile"]
    job.storage.write_json(f"tables/{key}.json", job.tables["mobile"].to_dict())
    said: list[str] = []
    pipeline.show_plan(job.plan.job, said.append, is_quick=True)
    assert any(line.startswith("case     mobile-mobilenet_v2_0.75: a baseline") for line in said)
    assert any(line.startswith("controls for each search") for line in said)
