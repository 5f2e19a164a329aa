"""Order of cases: warm-ups, then cases without dependencies, then those that share a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from orchestration.config.storage_layout import STAGE_END_FILE, search_folder, warmup_folder
from orchestration.planning.case import Case
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import make_plan
from orchestration.scheduling.order import Schedule, co_scheduled_groups, schedule
from tests.support.latency_tables import by_kernel, table_of
from tests.support.worker_context import tiny_job

CASES = [
    {"target": "mobile", "budgets_ms": ["80%", "110%", "130%"]},
    {"target": "cpu", "budgets_ms": ["90%"]},
]


def cases(folder: Path, **sections: Any) -> list[Case]:
    job = tiny_job(folder, CASES, **sections)
    plan = make_plan(job)
    return cases_of(plan, {name: table_of(plan.space, by_kernel) for name in plan.table_keys})


def ordered(folder: Path, missing: list[Case]) -> Schedule:
    storage = Storage(str(folder))
    return schedule(missing, storage, storage.sub("tiny"))


def names(cases: tuple[Case, ...]) -> list[str]:
    return [case.name for case in cases]


def test_all_searches_of_a_seed_start_from_one_warm_up(tmp_path: Path) -> None:
    result = ordered(tmp_path, cases(tmp_path, seeds=[0, 3]))
    assert names(result.warmups) == ["warm-up", "warm-up-seed3"]
    assert len(result.first) == 2 * (2 + 4)  # two references and four budgets a seed
    assert not result.followers


def test_a_warm_up_that_is_there_is_not_trained(tmp_path: Path) -> None:
    missing = cases(tmp_path)
    key = next(case.warmup_key for case in missing if case.warmup_key)
    Storage(str(tmp_path)).sub(warmup_folder(key)).write_json(STAGE_END_FILE, {})
    assert not ordered(tmp_path, missing).warmups


def test_cases_without_a_search_need_no_warm_up(tmp_path: Path) -> None:
    missing = [case for case in cases(tmp_path) if case.kind == "reference"]
    assert not ordered(tmp_path, missing).warmups


def test_of_budgets_that_share_a_search_the_middle_one_runs_it(tmp_path: Path) -> None:
    result = ordered(tmp_path, cases(tmp_path, search={"share": "target"}))
    searched = [case.name for case in result.first if case.kind == "search"]
    assert searched == ["mobile-0.088ms", "cpu-0.072ms"]
    assert names(result.followers) == ["mobile-0.064ms", "mobile-0.104ms"]
    assert [case.search_ms for case in result.followers] == pytest.approx([0.088] * 2)


def test_followers_of_a_search_that_is_there_wait_for_nothing(tmp_path: Path) -> None:
    missing = cases(tmp_path, search={"share": "target"})
    for case in missing:
        if case.search_key:
            folder = Storage(str(tmp_path)).sub("tiny").sub(search_folder(case.search_key))
            folder.write_json(STAGE_END_FILE, {})
    result = ordered(tmp_path, missing)
    assert (result.warmups, result.followers) == ((), ())
    assert names(result.first) == names(tuple(missing))


def test_where_the_middle_budget_is_finished_another_runs_the_search_again(tmp_path: Path) -> None:
    missing = cases(tmp_path, search={"share": "target"})
    rest = [case for case in missing if case.kind == "search" and not case.hosts_search]
    result = ordered(tmp_path, rest)
    assert names(result.first) == ["mobile-0.064ms"]
    assert names(result.followers) == ["mobile-0.104ms"]


def case(name: str, kind: str, seed: int = 0) -> Case:
    target, _, network = name.partition("-")
    parts = {"network": network, "latency table": target}
    values = {"name": name, "kind": kind, "target": target, "budget": 1.0, "budget_ms": 1.0}
    return Case.from_dict(
        {**values, "key": "key", "table_key": "table", "seed": seed, "parts": parts}
    )


SEARCHED, REFERENCE = case("mobile-1ms", "search"), case("mobile-reference", "reference")
BASELINE = case("mobile-mnasnet", "baseline")


def test_a_reference_network_is_trained_behind_a_search_of_its_target() -> None:
    groups = co_scheduled_groups([REFERENCE, BASELINE, SEARCHED], at_once=2)
    assert groups == [(SEARCHED, (REFERENCE,)), (BASELINE, ())]


def test_without_a_search_it_is_trained_behind_another_network() -> None:
    other = case("pixel1-2ms", "search")
    groups = co_scheduled_groups([REFERENCE, BASELINE, other], at_once=2)
    assert groups == [(other, ()), (BASELINE, (REFERENCE,))]


def test_where_all_others_are_finished_it_is_trained_alone() -> None:
    assert co_scheduled_groups([REFERENCE], at_once=1) == [(REFERENCE, ())]


def test_where_searches_fill_all_places_known_networks_are_trained_evenly_behind_them() -> None:
    second, given = case("mobile-2ms", "search"), case("mobile-mine", "given")
    groups = co_scheduled_groups([REFERENCE, BASELINE, given, SEARCHED, second], at_once=2)
    assert groups == [(SEARCHED, (given, REFERENCE)), (second, (BASELINE,))]


def test_a_group_is_of_one_target_and_one_seed() -> None:
    elsewhere, later = case("cpu-mnasnet", "baseline"), case("mobile-mnasnet-seed1", "baseline", 1)
    groups = co_scheduled_groups([elsewhere, later, SEARCHED], at_once=1)
    assert groups == [(SEARCHED, ()), (elsewhere, ()), (later, ())]


def test_a_network_that_several_targets_ask_for_is_trained_in_one_group() -> None:
    there, elsewhere = case("cpu-2ms", "search"), case("cpu-reference", "reference")
    groups = co_scheduled_groups([REFERENCE, elsewhere, SEARCHED, there], at_once=2)
    assert groups == [(SEARCHED, (REFERENCE, elsewhere)), (there, ())]
    again = case("cpu-mnasnet", "baseline")
    assert co_scheduled_groups([BASELINE, again], at_once=2) == [(BASELINE, (again,))]


def test_networks_that_searches_find_are_trained_by_themselves() -> None:
    twice = [case("mobile-1ms", "search"), case("cpu-1ms", "search")]
    assert co_scheduled_groups(twice, at_once=1) == [(item, ()) for item in twice]
