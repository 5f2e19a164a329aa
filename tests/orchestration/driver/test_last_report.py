"""A trial whose workers end right after a report, with Tune's own session but without Ray."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train._internal import session as tune_session
from ray.tune.result import RESULT_DUPLICATE
from ray.util.queue import Empty

from orchestration.driver.tune_callbacks import LAST, drain_reports, mark_drained


class Reports(queue.Queue[dict[str, Any]]):
    """Stand-in for the actor that holds one report of the workers."""

    def get(self, block: bool = True, timeout: float | None = None) -> dict[str, Any]:
        try:
            return super().get(block, timeout)
        except queue.Empty:
            raise Empty from None


@contextmanager
def trial(end: Callable[[], None], folder: Path) -> Iterator[Any]:
    """A trial with a pending report of its workers, which calls `end` and then finishes."""
    reports = Reports(1)

    def body() -> None:
        reports.put({"epoch": 0})
        end()
        session.report({RESULT_DUPLICATE: True})

    nothing = dict.fromkeys(
        ["world_rank", "local_rank", "node_rank", "local_world_size", "world_size"]
    )
    here = Path.cwd()
    storage = SimpleNamespace(
        trial_working_directory=str(folder),
        checkpoint_dir_name=None,
        persist_artifacts=lambda **_: None,
    )
    tune_session.init_session(
        training_func=body, storage=storage, synchronous_result_reporting=True, **nothing
    )
    session = tune_session.get_session()
    session._inter_actor_queue = reports
    session.start()
    time.sleep(0.3)  # the driver is slow
    try:
        yield session
    finally:
        tune_session.shutdown_session()
        os.chdir(here)  # a session goes into its folder


def taken_from(session: Any, found: list[dict[str, Any]]) -> None:
    """Main thread of a trial, up to the end of the trial."""
    while not found or RESULT_DUPLICATE not in found[-1]:
        found.append(session.get_next().metrics)
        mark_drained(found[-1])


def driven(end: Callable[[], None], folder: Path) -> list[dict[str, Any]]:
    """Reports that arrive within a time limit."""
    result: list[dict[str, Any]] = []
    with trial(end, folder) as session:
        main = Thread(target=taken_from, args=(session, result), daemon=True)
        main.start()
        main.join(5)
    return result


def test_all_reports_are_taken_before_the_trial_ends(tmp_path: Path) -> None:
    result = driven(drain_reports, tmp_path)
    assert [{"epoch", LAST, RESULT_DUPLICATE} & item.keys() for item in result] == [
        {"epoch"},
        {LAST},
        {RESULT_DUPLICATE},
    ]


@pytest.mark.slow
def test_tune_still_waits_for_itself_without(tmp_path: Path) -> None:
    # If this fails, Ray has fixed the deadlock and `drain_reports` can be removed.
    assert driven(lambda: None, tmp_path) == []
