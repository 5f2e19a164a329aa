"""Estimated time of a job: concurrency, phases, sharing and price, against sums made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage import Storage
from orchestration.config.digest import digest
from orchestration.driver.run_stats import RunStats
from orchestration.planning.budgets import LatencyRange, span_of
from orchestration.planning.case import NamedCase
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import Plan, make_plan, search_steps
from orchestration.planning.worker_layout import WorkerLayout
from orchestration.reports.plan import feeding_lines, time_lines
from orchestration.scheduling.estimate import RAY_S, Estimate, Timings, estimate, makespan
from orchestration.scheduling.order import schedule
from tests.support.latency_tables import by_kernel, table_of
from tests.support.worker_context import tiny_job

TIMINGS = Timings(
    start_s=10.0,
    warmup_start_s=8.0,
    warmup_step_s=1.0,
    own_warmup_step_s=2.0,
    search_step_s=3.0,
    retrain_step_s=0.5,
    measure_s={"mobile": 4.0, "cpu": 40.0},
    export_s={"mobile": 5.0, "cpu": 50.0},
    model_step_s={},
)
BUDGETS = [{"target": "mobile", "budgets_ms": ["80%", "110%", "130%"]}]
STEPS = 9  # of an epoch: 1,078 images in batches of 128
TRAINED = 11  # steps of the retraining: one epoch of 1,347 images
START_S = 10  # of a worker group
SEARCHED_S = 2 * STEPS * 3 + 4 + TRAINED * 0.5 + 5
REFERENCE_S = TRAINED * 0.5 + 5


def planned(folder: Path, cases: list[dict[str, Any]], at_once: int, **sections: Any) -> Estimate:
    plan = make_plan(tiny_job(folder, cases, **sections))
    result = cases_of(plan, {name: table_of(plan.space, by_kernel) for name in plan.table_keys})
    storage = Storage(str(folder))
    order = schedule(result, storage, storage.sub("tiny"))
    named = [digest(case.model) for case in result if isinstance(case, NamedCase)]
    timings = replace(TIMINGS, model_step_s=dict.fromkeys(named, 7.0))
    return estimate(plan, order, timings, WorkerLayout(1, 1, 0.0, at_once), 2, storage.sub("tiny"))


def test_the_steps_are_those_of_the_plan(tmp_path: Path) -> None:
    plan: Plan = make_plan(tiny_job(tmp_path, BUDGETS))
    assert search_steps(plan.job, plan.data) == STEPS
    result = planned(tmp_path, BUDGETS, 1).cases
    assert {item.search_steps for item in result.values()} == {2 * STEPS}
    assert [item.retrain_steps for item in result.values()] == [2 * TRAINED, TRAINED, TRAINED]


def test_cases_run_behind_each_other_after_their_warm_up(tmp_path: Path) -> None:
    result = planned(tmp_path, BUDGETS, 1)
    assert result.warmup_s == 8 + STEPS * 1
    assert result.seconds == pytest.approx(
        RAY_S + result.warmup_s + START_S + 3 * SEARCHED_S + REFERENCE_S
    )


def test_two_groups_take_as_long_as_the_longer_one(tmp_path: Path) -> None:
    result = planned(tmp_path, BUDGETS, 2)
    first = SEARCHED_S + REFERENCE_S  # hosts the reference network; then the third case follows
    longer = max(first, 2 * SEARCHED_S)
    assert result.seconds == pytest.approx(RAY_S + result.warmup_s + START_S + longer)


def test_without_sharing_every_case_warms_up_with_its_own_workers(tmp_path: Path) -> None:
    result = planned(tmp_path, BUDGETS, 1)
    assert result.alone_s == pytest.approx(
        RAY_S + START_S + 3 * (SEARCHED_S + STEPS * 2) + REFERENCE_S
    )


def test_budgets_that_share_a_search_only_derive(tmp_path: Path) -> None:
    result = planned(tmp_path, BUDGETS, 2, search={"share": "target"})
    derived = SEARCHED_S - 2 * STEPS * 3
    host = SEARCHED_S + REFERENCE_S
    assert result.seconds == pytest.approx(
        RAY_S + result.warmup_s + START_S + host + START_S + derived
    )
    assert sum(case.search_steps for case in result.cases.values()) == 2 * STEPS


def test_other_networks_take_their_own_time(tmp_path: Path) -> None:
    result = planned(tmp_path, [{"target": "mobile", "baseline": "mnasnet"}], 1)
    assert result.warmup_steps == 0
    assert result.cases["mobile-mnasnet"].seconds == pytest.approx(
        4 + TRAINED * (7.0 + 0.5) + 2 * 5
    )


def test_all_nodes_are_paid_all_the_time_and_a_case_for_its_part_of_them(tmp_path: Path) -> None:
    result = planned(tmp_path, BUDGETS, 2, cluster={"price_per_hour": 3.0})
    hours = result.node_hours(result.seconds)
    assert hours == pytest.approx(2 * result.seconds / 3600)
    assert result.price(hours) == pytest.approx(3 * hours)
    assert result.case_hours("mobile-0.088ms") == pytest.approx(SEARCHED_S / 3600)
    assert planned(tmp_path, BUDGETS, 1).price(1.0) is None


def test_a_plan_says_time_and_cost_with_sharing_and_without(tmp_path: Path) -> None:
    result = planned(tmp_path, BUDGETS, 1, cluster={"price_per_hour": 3.0})
    shared, alone = time_lines(result)
    assert shared.endswith(
        f" for {3 * result.node_hours(result.seconds):.2f} (2 nodes at 3 an hour)"
    )
    assert f"for {STEPS} steps of warm-up" in shared
    assert "if every case trained a warm-up and a search of its own; " in alone
    assert alone.endswith(f" for {3 * result.node_hours(result.alone_s):.2f}")


@given(st.lists(st.floats(0, 100), max_size=12), st.integers(1, 5))
def test_a_makespan_is_between_the_share_of_a_group_and_the_sum(
    seconds: list[float], at_once: int
) -> None:
    longest = makespan(seconds, at_once)
    assert sum(seconds) / at_once - 1e-6 <= longest <= sum(seconds) + 1e-6
    assert longest >= max(seconds, default=0.0)


def test_every_target_takes_its_own_time_to_measure_and_export(tmp_path: Path) -> None:
    cases = [
        {"target": "mobile", "budgets_ms": ["110%"]},
        {"target": "cpu", "budgets_ms": ["110%"]},
    ]
    mobile, cpu = planned(tmp_path, cases, 1).cases.values()
    references = TRAINED * 0.5 + 5 + 50  # trained once, behind the first case, for both
    assert cpu.seconds - mobile.seconds == pytest.approx(36 + 45 - references)
    assert (mobile.retrain_steps, cpu.retrain_steps) == (2 * TRAINED, TRAINED)


@pytest.mark.parametrize(
    ("search", "units"),
    [
        ({"strategy": "random"}, 2 * STEPS // 2),  # a network after every second step
        ({"strategy": "evolution"}, 2 * STEPS // 2),
        ({"strategy": "rl_trials"}, 3 * STEPS),  # all epochs go to networks
        ({"strategy": "reinforce"}, 2 * STEPS),
    ],
)
def test_a_search_is_made_of_what_its_strategy_does(
    tmp_path: Path, search: dict[str, Any], units: int
) -> None:
    result = planned(tmp_path, BUDGETS, 1, search=search)
    assert {case.search_steps for case in result.cases.values()} == {units}


def test_a_search_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    whole = planned(tmp_path, BUDGETS, 1)
    short = planned(tmp_path, BUDGETS, 1, search={"max_hours": 30 / 3600})
    assert whole.seconds - short.seconds == pytest.approx(3 * (2 * STEPS * 3 - 30))


def test_what_is_found_is_only_retrained(tmp_path: Path) -> None:
    plan = make_plan(tiny_job(tmp_path, BUDGETS))
    result = cases_of(plan, {"mobile": table_of(plan.space, by_kernel)})
    case = next(item for item in result if item.kind == "search")
    folder = Storage(str(tmp_path)).sub("tiny")
    folder.write_json(f"{case.folder}/derived.json", {"key": case.key})
    effort = planned(tmp_path, BUDGETS, 1).cases[case.name]
    assert effort.search_steps == 0
    assert effort.seconds == pytest.approx(TRAINED * 0.5 + 5 + REFERENCE_S)


def test_timings_are_read_back_and_those_of_an_earlier_version_are_not() -> None:
    assert Timings.from_dict(TIMINGS.to_dict()) == TIMINGS
    assert Timings.from_dict({**TIMINGS.to_dict(), "format": "timings/1"}) is None


def test_a_budget_is_put_between_the_networks_of_the_space(tmp_path: Path) -> None:
    table = table_of(make_plan(tiny_job(tmp_path)).space, by_kernel)
    fastest, slowest = table.range_ms()
    assert span_of(table, slowest) == LatencyRange(
        fastest, span_of(table, slowest).median, slowest, 1.0
    )
    assert span_of(table, fastest - 1e-9).within == 0.0
    assert span_of(table, fastest - 1e-9).text().startswith("under 1% of networks keep it (fastest")


def test_the_time_in_which_no_case_trains_is_counted() -> None:
    stats = RunStats()
    for phase, end, seconds, steps in (
        ("search", 110.0, 10.0, 5),
        ("search", 115.0, 10.0, 6),  # beside the first
        ("retrain", 140.0, 5.0, 7),
    ):
        stats("a", {"phase": phase, "time": end, "seconds": seconds, "steps": steps})
    stats("a", {"note": "no epoch"})
    stats.measured_s = 12.0
    result = stats.to_dict(wall_s=60.0)
    assert result["steps"] == {"search": 11, "retrain": 7}
    assert result["seconds"] == {"search": 20.0, "retrain": 5.0}
    assert result["idle_s"] == pytest.approx(60 - 12 - 20)
    assert result["busy_s"] == pytest.approx(15 + 5)
    stats.timed([(90.0, 96.0), (95.0, 97.0), (112.0, 117.0)])  # the last begins beside the search
    assert stats.to_dict(wall_s=60.0)["busy_s"] == pytest.approx(7 + 17 + 5)


def test_a_plan_says_when_training_would_wait_for_images(tmp_path: Path) -> None:
    waits = {"search": 0.05, "retrain": 0.2}
    fed = replace(TIMINGS, retrain_step_s=0.1, waits=waits, reading_per_s=1200.0)
    plan = make_plan(tiny_job(tmp_path, BUDGETS))
    storage = Storage(str(tmp_path))
    order = schedule([], storage, storage.sub("tiny"))
    layout, folder = WorkerLayout(1, 1, 0.0, 1), storage.sub("tiny")
    result = estimate(plan, order, fed, layout, 1, folder).feeding
    assert result is not None
    assert result.training == {"search": 128 / (3.0 * 0.95), "retrain": 128 / (0.1 * 0.8)}
    assert result.waiting("retrain") == pytest.approx(1 - 1200 / 1600)
    lines = list(feeding_lines(result))
    assert lines[0] == (
        "reading  about 1,200 images a second for a case; search takes 45, retrain takes 1,600"
    )
    (warning,) = lines[1:]
    assert warning.startswith("WARNING  retrain would wait for images 25% of the time: give")
    assert list(feeding_lines(None)) == []
    assert estimate(plan, order, TIMINGS, layout, 1, folder).feeding is None
