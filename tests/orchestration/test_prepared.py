"""Which workers train the warm-ups of a job."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.crewing import Crewing, Room
from orchestration.plan import Plan, make_plan
from orchestration.prepared import Prepared
from tests.orchestration.crew import tiny_job

BUDGETS = [{"target": "mobile", "budgets_ms": ["80%"]}]


def prepared(folder: Any, crew: Crewing, cpus: int) -> Prepared:
    plan: Plan = make_plan(tiny_job(folder, BUDGETS))
    nobody: Any = None
    return Prepared(plan, nobody, {}, [], [Room(cpus, 0)], crew, nobody)


@pytest.mark.parametrize(("warmups", "workers"), [(1, 4), (3, 4), (4, 1), (9, 1)])
def test_a_warm_up_has_all_workers_unless_several_fill_all_places(
    tmp_path: Any, warmups: int, workers: int
) -> None:
    ready = prepared(tmp_path, Crewing(1, 1, 0.0, 4), 4)
    assert ready.warmup_crew_for(warmups).workers == workers


def test_where_one_case_runs_at_a_time_a_warm_up_has_all_that_the_nodes_hold(tmp_path: Any) -> None:
    ready = prepared(tmp_path, Crewing(5, 1, 0.0, 1), 8)
    assert ready.warmup_crew_for(5).workers == 8
