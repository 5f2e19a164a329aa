"""Finished cases are recognised by content keys; a plan says what is redone and why."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from orchestration.config.loading import SpecError
from orchestration.planning.case import Case, checkpoints_place
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import make_plan
from orchestration.state.results_on_disk import adopt, is_done, why
from orchestration.state.snapshot import read_snapshot
from tests.support.latency_tables import by_kernel, table_of
from tests.support.worker_context import tiny_job

REFERENCE_MS = 0.08  # two k3 blocks of 0.03, stem and head


def cases(folder: Path, budgets: list[Any] | None = None, **sections: Any) -> dict[str, Case]:
    entry: dict[str, Any] = {"target": "mobile"}
    job = tiny_job(folder, [entry | ({"budgets_ms": budgets} if budgets else {})], **sections)
    plan = make_plan(job)
    return {case.name: case for case in cases_of(plan, {"mobile": table_of(plan.space, by_kernel)})}


def finish(folder: Storage, case: Case, name: str | None = None) -> None:
    values = {"key": case.key, "parts": case.parts, "case": name or case.name}
    folder.write_json(f"cases/{name or case.name}/architecture.json", {"of": case.name})
    folder.write_bytes(f"cases/{name or case.name}/model/model.pt2", b"weights")
    folder.write_json(f"cases/{name or case.name}/result.json", values)


def test_budgets_that_are_left_out_are_clipped_to_what_is_feasible(tmp_path: Path) -> None:
    # The slowest network (two k5 blocks) takes 150 % of the reference, the fastest 50 %.
    result = [case for case in cases(tmp_path).values() if case.kind == "search"]
    assert [case.budget for case in result[:-1]] == ["60%", "80%", "100%", "125%"]
    assert result[-1].budget == result[-1].budget_ms == pytest.approx(1.5 * REFERENCE_MS)


def test_a_changed_budget_adds_one_case(tmp_path: Path) -> None:
    before, after = cases(tmp_path, ["90%", "110%"]), cases(tmp_path, ["90%", "110%", "120%"])
    same = [name for name in after if name in before and after[name].key == before[name].key]
    assert same == list(before)
    assert len(after) == len(before) + 1


def test_every_seed_is_a_case_of_its_own_and_equals_that_seed_alone(tmp_path: Path) -> None:
    both, alone = cases(tmp_path, ["110%"], seeds=[0, 2]), cases(tmp_path, ["110%"], seed=2)
    assert list(both) == [
        "mobile-reference",
        "mobile-0.088ms",
        "mobile-reference-seed2",
        "mobile-0.088ms-seed2",
    ]
    assert {name: both[name] for name in alone} == alone


def test_a_result_under_another_name_is_taken_over_with_its_files(tmp_path: Path) -> None:
    folder, case = Storage(str(tmp_path / "job")), cases(tmp_path, ["110%"])["mobile-0.088ms"]
    finish(folder, case, "mobile-old-name")
    assert read_snapshot(folder).renamed([case]) == {"mobile-0.088ms": "mobile-old-name"}
    assert not is_done(case, folder)
    assert adopt([case], folder) == {"mobile-0.088ms": "mobile-old-name"}
    assert is_done(case, folder)
    assert folder.read_json("cases/mobile-0.088ms/result.json")["case"] == "mobile-0.088ms"
    assert folder.read_bytes("cases/mobile-0.088ms/model/model.pt2") == b"weights"
    assert not folder.exists("cases/mobile-old-name")
    assert adopt([case], folder) == {}
    assert {key.split("/")[0] for key in folder.list()} == {"cases"}


def test_results_whose_names_move_on_or_are_exchanged_are_all_kept(tmp_path: Path) -> None:
    folder = Storage(str(tmp_path / "job"))
    first, second, third = list(cases(tmp_path, ["90%", "110%", "130%"]).values())[1:]
    for case, old in ((first, second.name), (second, first.name), (third, "mobile-last")):
        finish(folder, case, old)
        folder.write_bytes(f"cases/{old}/model/model.pt2", case.name.encode())
    adopt([first, second, third], folder)
    for case in (first, second, third):
        assert is_done(case, folder)
        assert folder.read_bytes(f"{case.folder}/model/model.pt2") == case.name.encode()
    assert len({key.split("/")[1] for key in folder.list("cases")}) == 3


@pytest.mark.parametrize("writes", range(14))
def test_a_change_of_names_that_is_killed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    folder = Storage(str(tmp_path / "job"))
    first, second = list(cases(tmp_path, ["90%", "110%"]).values())[1:]
    finish(folder, first, second.name)
    finish(folder, second, first.name)
    left = iter(range(writes))

    def write(storage: Storage, key: str, data: bytes) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        whole(storage, key, data)

    whole = Storage.write_bytes
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Storage, "write_bytes", write)
        adopt([first, second], folder)
    adopt([first, second], folder)
    for case in (first, second):
        assert is_done(case, folder)
        assert folder.exists(f"{case.folder}/model/model.pt2")
    assert {key.split("/")[0] for key in folder.list()} == {"cases"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "done"),
        ({"retrain": {"epochs": 2, "batch_size": 128}}, "to do again: retrain changed"),
        ({"search": {"epochs": 3}}, "to do again: search changed"),
        (
            {"data": {"source": "digits", "resolution": 16, "test_share": 0.5}},
            "to do again: data changed",
        ),
        (
            {"measure": {"calibrate_s": 0.0, "accept_noisy": True, "rounds": 9}},
            "to do again: latency table changed",
        ),
    ],
)
def test_a_plan_says_why_a_case_is_done_again(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    folder = Storage(str(tmp_path / "job"))
    for case in cases(tmp_path, ["110%"]).values():
        finish(folder, case)
    assert (
        why(cases(tmp_path, ["110%"], **changes)["mobile-0.088ms"], folder, read_snapshot(folder))
        == reason
    )


def test_a_plan_says_what_is_there_of_a_case(tmp_path: Path) -> None:
    folder, case = Storage(str(tmp_path / "job")), cases(tmp_path, ["110%"])["mobile-0.088ms"]
    assert why(case, folder, read_snapshot(folder)) == "to do"
    folder.write_json(f"{checkpoints_place(case)}/search/00001-00000000/rank-0.json", {})
    assert why(case, folder, read_snapshot(folder)) == "to do: resumes from its checkpoint"
    folder.write_json(f"{case.folder}/derived.json", {"key": case.key})
    assert why(case, folder, read_snapshot(folder)) == "to do: derived and measured, not retrained"


@pytest.mark.parametrize(("budget", "nearest"), [(0.001, "0.02"), (9.0, "0.12")])
def test_a_budget_that_no_network_keeps_names_the_nearest(
    tmp_path: Path, budget: float, nearest: str
) -> None:
    with pytest.raises(SpecError, match=r"cases\[0\].budgets_ms\[0\] is .*; name a budget between"):
        cases(tmp_path, [budget])
    with pytest.raises(SpecError, match=f"the nearest is {nearest}"):
        cases(tmp_path, [budget])


def test_the_latency_of_the_reference_is_a_budget_however_noisy_the_table(tmp_path: Path) -> None:
    plan = make_plan(tiny_job(tmp_path, [{"target": "mobile", "budgets_ms": ["100%"]}]))
    table = table_of(plan.space, by_kernel)
    slower = replace(table, reference_ms=1.1 * table.range_ms()[1])
    case = next(c for c in cases_of(plan, {"mobile": slower}) if c.kind == "search")
    assert case.budget_ms == slower.reference_ms
