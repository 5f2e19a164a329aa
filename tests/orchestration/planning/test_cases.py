"""Cases are stored under the same keys whatever their kind, and are read from files of any age."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage, StorageError
from orchestration.planning.case import (
    KINDS,
    ORDER,
    BaselineCase,
    Case,
    RandomCase,
    ReferenceCase,
    SearchCase,
    WarmUpCase,
)
from orchestration.planning.cases import cases_of, warmup_case
from orchestration.planning.plan import make_plan
from orchestration.state.run_file import read_plan
from tests.support.latency_tables import by_kernel, table_of
from tests.support.worker_context import tiny_job

STORED = """{
  "name": "mobile-0.1ms-seed2",
  "kind": "search",
  "target": "mobile",
  "budget": "80%",
  "budget_ms": 0.1,
  "key": "c0",
  "table_key": "t0",
  "model": null,
  "seed": 2,
  "parts": {
    "seed": "s0"
  },
  "search_ms": 0.2,
  "search_key": "k0",
  "warmup_key": "w0"
}"""
"""A search as `job.json` has held it since searches are shared."""


def stored(**changes: Any) -> dict[str, Any]:
    return {**json.loads(STORED), **changes}


def without(*names: str) -> dict[str, Any]:
    return {key: value for key, value in stored().items() if key not in names}


def cases(folder: Path) -> list[Case]:
    """Cases of all kinds but a given architecture, and a warm-up."""
    entries = [
        {"target": "mobile", "budgets_ms": ["90%"]},
        {"target": "mobile", "baseline": "mobilenet_v2_0.1"},
    ]
    plan = make_plan(tiny_job(folder, entries, controls=True, retrain={"epochs": 2}))
    made = cases_of(plan, {"mobile": table_of(plan.space, by_kernel)})
    return [*made, warmup_case("w0", seed=2)]


def test_every_kind_has_a_class() -> None:
    assert set(KINDS) == {*ORDER, "warmup"}


def test_a_job_has_a_class_for_each_of_its_cases(tmp_path: Path) -> None:
    kinds = [type(case) for case in cases(tmp_path)]
    assert kinds == [ReferenceCase, SearchCase, RandomCase, BaselineCase, WarmUpCase]


def test_a_case_is_written_as_it_always_was() -> None:
    assert json.dumps(Case.from_dict(stored()).to_dict(), indent=2) == STORED


def test_all_kinds_have_the_same_keys_and_are_read_again(tmp_path: Path) -> None:
    for case in cases(tmp_path):
        values = json.loads(json.dumps(case.to_dict()))
        assert list(values) == list(stored()), case.kind
        assert Case.from_dict(values) == case


def test_a_warm_up_has_no_target_and_is_its_own_warm_up() -> None:
    values = warmup_case("w0", seed=2).to_dict()
    nothing = dict.fromkeys(("budget", "budget_ms", "model", "search_ms", "search_key"))
    known = {"name": "warm-up-seed2", "kind": "warmup", "target": "", "table_key": ""}
    assert values == stored(**nothing, **known, key="w0", parts={})


@pytest.mark.parametrize("kind", ["given", "baseline"])
def test_a_plan_leaves_out_networks_and_what_results_depend_on(kind: str) -> None:
    values = {key: value for key, value in stored(kind=kind).items() if value is not None}
    del values["parts"]
    assert Case.from_dict(values).to_dict()["model"] == {}


def test_before_searches_were_shared_each_ran_against_its_own_budget() -> None:
    case = Case.from_dict(without("search_ms", "search_key", "warmup_key"))
    assert isinstance(case, SearchCase)
    assert case.search_ms == case.budget_ms
    assert not case.hosts_search


def test_keys_of_other_versions_are_ignored() -> None:
    assert Case.from_dict(stored(colour="red")) == Case.from_dict(stored())


@pytest.mark.parametrize("values", [stored(kind="guess"), without("budget_ms"), without("key")])
def test_a_folder_with_another_case_is_not_understood(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    folder = Storage(str(tmp_path))
    folder.write_json("job.json", {"settings": {}, "plan": {"cases": [values]}})
    with pytest.raises(StorageError, match="cannot be read"):
        read_plan(folder)


def test_a_case_that_is_known_by_its_checkpoints_counts_as_a_search(tmp_path: Path) -> None:
    folder = Storage(str(tmp_path))
    folder.write_bytes("checkpoints/mobile-0.1ms-0123456789abcdef/search/x", b"weights")
    (case,) = read_plan(folder).cases
    assert (case.name, case.key, case.kind) == ("mobile-0.1ms", "0123456789abcdef", "search")
    assert (case.limit_ms, case.search_key, case.warmup_key) == (None, None, None)
