"""Early stopping of searches, with a stand-in for Tune."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage import Storage
from orchestration.config.early_stopping import AshaSettings
from orchestration.config.job import Job
from orchestration.config.loading import SpecError, load_job
from orchestration.config.storage_layout import RUNGS_FILE
from orchestration.driver.tune_callbacks import asha_scheduler
from orchestration.planning.case import Case, SearchCase
from orchestration.planning.plan import make_plan
from orchestration.scheduling.successive_halving import Rungs, group_of, rungs_of
from orchestration.state.snapshot import read_snapshot

HALVING = AshaSettings(first_epoch=1)
SCORES = st.floats(0, 1) | st.just(math.nan)
REPORTS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from([1, 2, 4, 8]), SCORES), max_size=30
)


def test_rungs_grow_by_the_reduction_and_leave_the_last_epoch_out() -> None:
    assert HALVING.rungs(16) == [1, 2, 4, 8]
    assert AshaSettings(first_epoch=2, reduction=3).rungs(20) == [2, 6, 18]


@given(st.integers(1, 9), st.floats(1.01, 9), st.integers(0, 200))
def test_rungs_rise_and_each_is_an_epoch_before_the_last(
    first: int, reduction: float, epochs: int
) -> None:
    rungs = AshaSettings(first_epoch=first, reduction=reduction).rungs(epochs)
    assert rungs == sorted(set(rungs))
    assert all(first <= rung < epochs for rung in rungs)


def test_who_is_below_the_best_half_so_far_ends() -> None:
    rungs = Rungs(HALVING, 6)
    assert rungs.report("mobile", "first", 2, 0.72) is None
    assert rungs.report("mobile", "second", 2, 0.61) == (
        "at epoch 2 (score 0.61, below 0.72 of the best half at this budget)"
    )


def test_equal_scores_go_on() -> None:
    rungs = Rungs(HALVING, 6)
    assert [rungs.report("mobile", key, 1, 0.5) for key in "abc"] == [None] * 3


def test_other_epochs_than_rungs_and_other_groups_end_nobody() -> None:
    rungs = Rungs(HALVING, 6)
    rungs.report("mobile", "a", 1, 0.9)
    rungs.report("mobile", "a", 3, 0.9)
    assert rungs.report("mobile", "b", 3, 0.1) is None
    assert rungs.report("cpu", "b", 1, 0.1) is None


def test_not_a_number_is_the_worst() -> None:
    rungs = Rungs(HALVING, 6)
    rungs.report("mobile", "a", 1, 0.0)
    assert rungs.report("mobile", "b", 1, math.nan) is not None


@given(st.lists(st.floats(0, 1), min_size=1), st.sampled_from([1.5, 2.0, 3.0, 4.0]))
def test_a_score_goes_on_if_few_before_it_were_better(
    scores: list[float], reduction: float
) -> None:
    rungs = Rungs(AshaSettings(first_epoch=1, reduction=reduction), 6)
    for number, score in enumerate(scores):
        better = sum(other > score for other in scores[:number])
        goes_on = better < max(1, int((number + 1) / reduction))
        assert (rungs.report("g", str(number), 1, score) is None) == goes_on


@given(REPORTS)
def test_the_best_so_far_always_goes_on(reports: list[tuple[str, int, float]]) -> None:
    rungs, best = Rungs(HALVING, 9), dict[int, float]()
    for key, epoch, score in reports:
        was_stopped, is_best = key in rungs.stopped, score >= best.get(epoch, -math.inf)
        reason = rungs.report("g", key, epoch, score)
        assert reason is None or was_stopped or not is_best
        best[epoch] = max(best.get(epoch, -math.inf), -math.inf if math.isnan(score) else score)


@given(REPORTS, REPORTS)
def test_a_restart_changes_no_verdict(
    before: list[tuple[str, int, float]], after: list[tuple[str, int, float]]
) -> None:
    rungs = Rungs(HALVING, 9)
    for key, epoch, score in before:
        rungs.report("g", key, epoch, score)
    again = Rungs.from_dict(json.loads(json.dumps(rungs.to_dict(), allow_nan=False)), HALVING, 9)
    for key, epoch, score in after:
        assert again.report("g", key, epoch, score) == rungs.report("g", key, epoch, score)


@given(REPORTS)
def test_saying_it_again_is_answered_as_before_and_not_recorded(
    reports: list[tuple[str, int, float]],
) -> None:
    rungs = Rungs(HALVING, 9)
    for key, epoch, score in reports:
        answer, recorded = rungs.report("g", key, epoch, score), rungs.to_dict()
        assert rungs.report("g", key, epoch, 0.0) == answer
        assert rungs.to_dict() == recorded


def test_other_settings_keep_the_scores_and_decide_anew() -> None:
    rungs = Rungs(HALVING, 6)
    rungs.report("g", "a", 1, 0.9)
    rungs.report("g", "b", 1, 0.1)
    again = Rungs.from_dict(rungs.to_dict(), AshaSettings(first_epoch=1, reduction=4), 6)
    assert again.stopped == {}
    assert again.to_dict()["rungs"] == rungs.to_dict()["rungs"]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("asha.reduction=1", "asha.reduction is 1.0; expected a number greater than 1"),
        ("asha.first_epoch=0", "asha.first_epoch is 0; expected 1 or more"),
        ("asha.first_epoch=1", r"more than search.hold_epochs \(1\), before which nothing is"),
        ("search.share=target", "search.share is 'target'; expected 'none' with asha"),
        ("search.strategy=random", "expected one that learns, with asha"),
    ],
)
def test_what_does_not_go_together_is_refused(job_file: Path, setting: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        load_job(job_file, ["asha.first_epoch=2", setting])


def test_it_is_off_by_default(job_file: Path, tmp_path: Path) -> None:
    job = load_job(job_file)
    assert job.asha is None
    assert job.score_epochs == []
    assert asha_scheduler(job, [], Storage(str(tmp_path))) is None


SWEEP = ["search.warmup_epochs=3", "search.epochs=6", "search.hold_epochs=0", "asha.first_epoch=1"]


def a_job(file: Path) -> Job:
    return load_job(file, SWEEP)


def seeds(count: int, budget: str = "0.2") -> list[Case]:
    """Cases that differ only in the seed."""
    return [
        SearchCase(
            name=f"mobile-{budget}ms-seed{seed}",
            target="mobile",
            budget=float(budget),
            budget_ms=float(budget),
            search_ms=float(budget),
            key=f"key-{budget}-{seed}",
            table_key="table",
            seed=seed,
            parts={"seed": str(seed), "budget": budget, "search": "s"},
        )
        for seed in range(count)
    ]


def asked(scheduler: Any, case: Case, **result: Any) -> str:
    trial = SimpleNamespace(config={"case": case.name})
    answer: str = scheduler.on_trial_result(None, trial, result)
    return answer


def test_scores_are_said_after_rungs_behind_the_warm_up(job_file: Path) -> None:
    assert a_job(job_file).score_epochs == [3, 4, 6]  # the 1st, 2nd and 4th of the search


def test_cases_are_compared_if_only_their_seeds_differ() -> None:
    first, second = seeds(2)
    assert group_of(first) == group_of(second)
    assert group_of(first) != group_of(*seeds(1, "0.3"))
    changed = replace(first, parts={**first.parts, "search": "other"})
    assert group_of(first) != group_of(changed)


def test_tune_is_told_to_stop_who_falls_behind(job_file: Path, tmp_path: Path) -> None:
    cases, other = seeds(2), seeds(1, "0.3")[0]
    scheduler = asha_scheduler(a_job(job_file), [*cases, other], Storage(str(tmp_path)))
    assert asked(scheduler, cases[0], epoch=4, score=0.7) == "CONTINUE"
    assert asked(scheduler, cases[1], epoch=4) == "CONTINUE"
    assert asked(scheduler, other, epoch=4, score=0.1) == "CONTINUE"
    assert asked(scheduler, cases[1], epoch=4, score=0.6) == "STOP"


def test_a_job_that_is_submitted_again_goes_on_with_its_rungs(
    job_file: Path, tmp_path: Path
) -> None:
    job, cases, folder = a_job(job_file), seeds(3), Storage(str(tmp_path))
    before = asha_scheduler(job, cases, folder)
    asked(before, cases[0], epoch=3, score=0.7)
    asked(before, cases[1], epoch=3, score=0.6)
    after = asha_scheduler(job, cases, folder)
    assert asked(after, cases[0], epoch=3, score=0.7) == "CONTINUE"
    assert asked(after, cases[2], epoch=3, score=0.65) == "STOP"
    assert set(read_snapshot(folder, job.asha).stopped_early(cases)) == {
        cases[1].name,
        cases[2].name,
    }


def done_with(folder: Storage, cases: Sequence[Case]) -> None:
    for case in cases:
        folder.write_json(f"{case.folder}/result.json", {"key": case.key})


def test_who_reached_the_end_all_the_same_is_done(job_file: Path, tmp_path: Path) -> None:
    job, cases, folder = a_job(job_file), seeds(2), Storage(str(tmp_path))
    rungs = rungs_of(HALVING, 6, folder)
    rungs.report("g", cases[0].key, 1, 0.9)
    rungs.report("g", cases[1].key, 1, 0.1)
    folder.write_json(RUNGS_FILE, rungs.to_dict())
    assert set(read_snapshot(folder, job.asha).stopped_early(cases)) == {cases[1].name}
    assert read_snapshot(folder).stopped_early(cases) == {}
    done_with(folder, cases)
    assert read_snapshot(folder, job.asha).stopped_early(cases) == {}


def test_a_single_seed_has_nobody_to_be_compared_with(job_file: Path) -> None:
    with pytest.raises(SpecError, match=r"seeds is \[0\]; expected two or more with asha"):
        make_plan(load_job(job_file, ["asha.first_epoch=2"]))
    make_plan(load_job(job_file, ["asha.first_epoch=2", "seeds=[0, 1]"]))
