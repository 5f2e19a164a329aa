"""Cases in one worker group, without Ray: threads stand in for workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from orchestration.distributed import shared_group
from orchestration.distributed.control_actor import ControlActor
from orchestration.distributed.shared_group import (
    close_own_group,
    resolved,
    run_in_own_group,
)

TASKS = {name: {"case": name} for name in ("first", "second", "third")}


class Handle:
    """Handle of an actor whose methods are called at once."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._actor, name))


class Workers:
    """Workers of the groups that are started; they fail once in each case of `failing`."""

    def __init__(self, control: Any, failing: list[str]) -> None:
        self.control, self.failing = control, failing
        self.ran: list[tuple[str, str]] = []
        """(group, case) of all cases that were begun."""

    def fit(self, group: str) -> None:
        while (task := shared_group._next_task(self.control, group)) is not None:
            case = task["case"]
            self.ran.append((group, case))
            self.control.record.remote(case, {"epoch": 0})
            if case in self.failing:
                self.failing.remove(case)
                raise RuntimeError(f"workers were lost in {case}")
            self.control.record.remote(case, {"epoch": 1})
            self.control.finish.remote(group)

    @property
    def groups(self) -> int:
        return len({group for group, _ in self.ran})


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(shared_group, "TRIAL_POLL_S", 0.01)
    monkeypatch.setattr(shared_group, "WORKER_POLL_S", 0.01)
    monkeypatch.setattr(shared_group, "_own", None)
    handle = Handle(ControlActor())
    handle.add_tasks.remote(TASKS)
    yield handle
    close_own_group(10)


def run(workers: Workers, case: str) -> list[dict[str, Any]]:
    """Run a case; returns its reports."""
    reports: list[dict[str, Any]] = []
    run_in_own_group(case, workers.control, workers.fit, reports.append)
    return reports


def test_cases_run_in_one_group_and_report_to_their_own_trial(control: Any) -> None:
    workers = Workers(control, [])
    for case in TASKS:
        assert run(workers, case) == [{"epoch": 0}, {"epoch": 1}]
        assert not control.is_assigned.remote(case)
    assert [case for _, case in workers.ran] == list(TASKS)
    assert workers.groups == 1


def test_workers_that_are_started_again_get_the_case_that_was_not_finished(control: Any) -> None:
    control.assign.remote("a group", "second")
    for _ in range(2):
        assert shared_group._next_task(control, "a group") == TASKS["second"]
    control.finish.remote("a group")
    control.close.remote("a group")
    assert shared_group._next_task(control, "a group") is None


def test_a_case_belongs_to_the_group_that_got_it_last(control: Any) -> None:
    control.assign.remote("lost", "first")
    control.assign.remote("new", "first")
    assert shared_group._next_task(control, "new") == TASKS["first"]
    control.finish.remote("new")
    assert not control.is_assigned.remote("first")


def test_a_group_that_is_closed_ends_its_case_first(control: Any) -> None:
    control.assign.remote("a group", "third")
    control.close.remote("a group")
    assert shared_group._next_task(control, "a group") == TASKS["third"]


def test_the_first_case_of_a_group_fails_with_it(control: Any) -> None:
    workers = Workers(control, ["first"])
    with pytest.raises(RuntimeError, match="workers were lost in first"):
        run(workers, "first")
    assert not control.is_assigned.remote("first")
    assert run(workers, "second") == [{"epoch": 0}, {"epoch": 1}]
    assert workers.groups == 2


def test_a_later_case_is_tried_again_in_a_group_of_its_own(control: Any) -> None:
    workers = Workers(control, ["second"])
    run(workers, "first")
    assert run(workers, "second") == [{"epoch": 0}, {"epoch": 0}, {"epoch": 1}]
    run(workers, "third")
    assert [case for _, case in workers.ran] == ["first", "second", "second", "third"]
    assert workers.groups == 2


def test_a_later_case_that_fails_twice_has_failed(control: Any) -> None:
    workers = Workers(control, ["second", "second"])
    run(workers, "first")
    with pytest.raises(RuntimeError, match="workers were lost in second"):
        run(workers, "second")


def test_a_closed_group_ends(control: Any) -> None:
    workers = Workers(control, [])
    run(workers, "first")
    group = shared_group._own
    assert group is not None
    assert group.is_running
    began = time.monotonic()
    close_own_group(10)
    assert not group.is_running
    assert time.monotonic() - began < 5
    close_own_group(10)  # nothing is left to close


def test_references_to_shared_parts_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    table = ray.ObjectRef(b"t" * 28)
    monkeypatch.setattr(ray, "get", lambda reference: {"rows": [1, 2]} if reference is table else 0)
    task = {"table": table, "elsewhere": {"cpu": [{"batch_size": 1}, table]}, "threads": 1}
    rows = {"rows": [1, 2]}
    expected = {"table": rows, "elsewhere": {"cpu": [{"batch_size": 1}, rows]}, "threads": 1}
    assert resolved(task) == expected
