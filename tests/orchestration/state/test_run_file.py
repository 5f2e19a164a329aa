"""`plan.json` exists from the start of a run to its end, and after a run that was stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.config.loading import SpecError
from orchestration.driver import executor, pipeline
from orchestration.state.run_file import JobPlan, begun, known_further, read_plan
from tests.support.unfinished_job import BegunJob


@pytest.fixture
def job(tmp_path: Path) -> BegunJob:
    return BegunJob(tmp_path)


def run(
    job: BegunJob, monkeypatch: pytest.MonkeyPatch, end: Exception | type[BaseException] | None
) -> JobPlan:
    """Content of `plan.json` during a run that ends in a given way; nothing is trained."""
    seen: list[JobPlan] = []

    def do_missing(*_: Any) -> executor.Done:
        seen.append(read_plan(job.folder))
        if end is not None:
            raise end
        return executor.Done(list(job.cases.values()), {}, {"wall_s": 1.0, "busy_s": 0.6})

    monkeypatch.setattr(executor, "run_missing", do_missing)
    if end is None:
        pipeline.run(job.job)
    else:
        with pytest.raises(type(end) if isinstance(end, Exception) else end):
            pipeline.run(job.job)
    return seen[0]


def test_a_run_says_what_it_is_going_to_do(job: BegunJob, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = run(job, monkeypatch, KeyboardInterrupt)
    assert [case.name for case in plan.cases] == [job.reference.name]  # no table, no search yet
    assert (plan.is_complete, plan.unmeasured, plan.ended) == (False, ("mobile",), None)
    assert (plan.warmup_epochs, plan.search_epochs, plan.retrain_epochs) == (2, 5, 4)


def test_a_stopped_run_leaves_its_plan(job: BegunJob, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = run(job, monkeypatch, KeyboardInterrupt)
    assert read_plan(job.folder) == plan
    assert plan.begun


def test_a_run_that_ends_leaves_job_json_alone(
    job: BegunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_record", lambda *_: ())
    run(job, monkeypatch, None)
    assert not job.folder.exists("plan.json")
    assert read_plan(job.folder).ended == job.folder.read_json("job.json")


def test_a_run_that_is_refused_has_begun_nothing(
    job: BegunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job, monkeypatch, SpecError("the cluster has no GPU"))
    assert not job.folder.exists("plan.json")


def test_cases_are_read_as_they_were_but_for_what_nobody_needs(job: BegunJob) -> None:
    with begun(job.plan, [job.reference], job.folder, {}, is_complete=False):
        began = read_plan(job.folder).begun
        known_further(list(job.cases.values()), job.folder, at_once=3)
    result = read_plan(job.folder)
    assert (result.at_once, result.is_complete, result.unmeasured) == (3, True, ())
    assert result.begun == began
    assert list(result.cases) == [replace(case, parts={}) for case in job.cases.values()]


def test_job_json_tells_the_same_cases_and_epochs_as_the_plan(job: BegunJob) -> None:
    job.begin()
    plan = read_plan(job.folder)
    job.end()
    ended = read_plan(job.folder)
    assert [case.key for case in ended.cases] == [case.key for case in plan.cases]
    for name in ("is_complete", "warmup_epochs", "search_epochs", "retrain_epochs", "asha"):
        assert getattr(ended, name) == getattr(plan, name)


def test_a_search_without_a_warm_up_counts_all_its_epochs(tmp_path: Path) -> None:
    job = BegunJob(tmp_path, search={"strategy": "rl_trials"})
    job.begin()
    plan = read_plan(job.folder)
    job.end()
    for result in (plan, read_plan(job.folder)):
        assert (result.warmup_epochs, result.search_epochs) == (0, 5)
