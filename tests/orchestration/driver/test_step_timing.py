"""Timing of steps for a plan, without Ray: covers all phases and leaves no files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.dataset import Dataset
from orchestration.driver import step_timing
from orchestration.driver.step_timing import (
    FEWEST_STEPS,
    MOST_STEPS,
    _search_step_s,
    _step_s,
    _training_step_s,
    _typical,
    _warmup_step_s,
)
from orchestration.stages.context import WorkerContext
from tests.support.worker_context import context_of, digits, tiny_job


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture
def context(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerContext:
    monkeypatch.setattr(step_timing, "LONG_ENOUGH_S", 0.0)
    return context_of(tiny_job(tmp_path / "storage"), dataset)


def test_every_phase_takes_time_and_leaves_nothing(context: WorkerContext, tmp_path: Path) -> None:
    result = [
        _warmup_step_s(context),
        _search_step_s(context),
        _training_step_s(context, _typical(context)),
    ]
    assert min(result) > 0
    assert not (tmp_path / "storage").exists()


def test_a_phase_that_a_job_has_not_takes_none(dataset: Dataset, tmp_path: Path) -> None:
    context = context_of(tiny_job(tmp_path, retrain=None, search={"warmup_epochs": 0}), dataset)
    assert _warmup_step_s(context) == 0.0
    assert _training_step_s(context, _typical(context)) == 0.0


def test_a_typical_network_keeps_the_budget(context: WorkerContext) -> None:
    assert context.table.latency_ms(_typical(context)) <= context.search_case.budget_ms


@pytest.mark.parametrize("strategy", ["random", "rl_trials", "reinforce"])
def test_searches_of_all_kinds_are_timed(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(step_timing, "LONG_ENOUGH_S", 0.0)
    context = context_of(tiny_job(tmp_path, search={"strategy": strategy}), dataset)
    assert _search_step_s(context) > 0


def test_a_job_that_searches_nothing_times_no_supernet(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_timing, "start_search", None)  # would be called
    cases = [{"target": "mobile", "baseline": "mobilenet_v2_0.1"}]
    context = context_of(tiny_job(tmp_path, cases), dataset, case="mobile-mobilenet_v2_0.1")
    assert (_warmup_step_s(context), _search_step_s(context)) == (0.0, 0.0)


def counting(made: list[int]) -> Iterator[None]:
    while True:
        made.append(len(made))
        yield None


@pytest.mark.parametrize("together", [1, 5])
def test_steps_are_timed_as_long_as_needed_and_whole_turns(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    made: list[int] = []
    _step_s(context, counting(made), together)
    assert len(made) == together + -(-FEWEST_STEPS // together) * together
    monkeypatch.setattr(step_timing, "LONG_ENOUGH_S", 1e9)
    made.clear()
    _step_s(context, counting(made), together)
    assert len(made) == together + MOST_STEPS


def test_workers_that_fail_are_no_timing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        step_timing, "run_cases", lambda *_words, **_named: {"timed-0": "out of memory"}
    )
    words: Any = ([], None, (None, None), None, None)
    with pytest.raises(RuntimeError, match="steps could not be timed: out of memory"):
        step_timing.timed_steps(*words)


def test_phases_of_few_steps_are_divided_by_those_that_there_are(context: WorkerContext) -> None:
    clock = iter(range(100))

    def slow(count: int) -> Iterator[None]:
        for _ in range(count):
            next(clock)
            yield None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_timing.time, "perf_counter", lambda: float(next(clock)))
        assert _step_s(context, slow(3)) == pytest.approx(2.0)
        assert _step_s(context, slow(1)) == pytest.approx(2.0)
