"""Worker groups that run cases one after the other.

Starting the processes of a worker group takes longer than a small case. A trial therefore leaves
its group running, and the next trial in the same process gives it another case. Cases pass through
the control actor: a trial assigns a case to a group, and the first worker of the group asks for it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import ray

from orchestration.distributed.control_actor import CLOSED

TRIAL_POLL_S, WORKER_POLL_S = 0.2, 0.1
"""Seconds between two requests to the control actor, by a trial and by the first worker."""


def run_assigned_cases(config: dict[str, Any]) -> None:
    """Body of all workers of a group: run the cases that are assigned to it until it is closed.

    Workers that are started again after a failure get the case that was not finished.

    Args:
        config: "group", the name of the group; "control", the handle of the control actor; "body",
            a function that all workers call for each case, with "task" and "control".
    """
    from orchestration.distributed.process_group import DistributedProcessGroup, worker_device

    control, name = config["control"], config["group"]
    context = ray.train.get_context()
    group = DistributedProcessGroup(
        context.get_world_rank(), context.get_world_size(), worker_device()
    )
    while (task := group.broadcast_from_first(lambda: _next_task(control, name))) is not None:
        config["body"]({"task": task, "control": control})
        group.barrier()
        if group.rank == 0:
            ray.get(control.finish.remote(name))


def _next_task(control: Any, name: str) -> dict[str, Any] | None:
    """Wait for the next case of a group; None once the group is closed."""
    while True:
        answer = ray.get(control.task_of.remote(name))
        if answer == CLOSED:
            return None
        if answer is not None:
            task: dict[str, Any] = resolved(answer)
            return task
        time.sleep(WORKER_POLL_S)


def resolved(value: Any) -> Any:
    """Nested plain values with references to Ray objects replaced by the objects."""
    if isinstance(value, ray.ObjectRef):
        return ray.get(value)
    if isinstance(value, dict):
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(item) for item in value]
    return value


class SharedGroup:
    """A worker group, started and watched by the process of a trial."""

    def __init__(self, control: Any, fit: Callable[[str], object]) -> None:
        """Start the group.

        Args:
            control: handle of the control actor.
            fit: starts workers that run `run_assigned_cases` for the group of the given name, and
                returns when they have ended. Raises what has ended them.
        """
        self.name = f"group-{uuid.uuid4().hex[:8]}"
        self.cases = 0
        """Number of cases that were assigned to the group."""
        self._control, self._fit, self._error = control, fit, RuntimeError("its workers have ended")
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._fit(self.name)
        except Exception as error:  # raised again by `run`
            self._error = error  # type: ignore[assignment]

    @property
    def is_running(self) -> bool:
        """Whether the group can run a case."""
        return self._thread.is_alive()

    def run(self, case: str, report: Callable[[dict[str, Any]], None]) -> None:
        """Run a case to its end.

        Args:
            case: its name.
            report: called with each report of its first worker.

        Raises:
            Exception: what has ended the workers before the case was finished.
        """
        self.cases += 1
        ray.get(self._control.assign.remote(self.name, case))
        is_assigned = True
        while is_assigned:
            is_alive = self.is_running  # read first: reports of ended workers are complete
            is_assigned, records = ray.get(self._control.progress_of_group.remote(self.name, case))
            for record in records:
                report(record)
            if is_assigned and not is_alive:
                ray.get(self._control.finish.remote(self.name))
                raise self._error
            if is_assigned:
                time.sleep(TRIAL_POLL_S)

    def close(self, timeout_s: float) -> None:
        """End the workers once they have finished their case, and wait for that."""
        ray.get(self._control.close.remote(self.name))
        self._thread.join(timeout_s)


_own: SharedGroup | None = None
"""Worker group of this process."""


def run_in_own_group(
    case: str,
    control: Any,
    fit: Callable[[str], object],
    report: Callable[[dict[str, Any]], None],
) -> None:
    """Run a case in the worker group of this process, which is started if there is none.

    A failure that ends a group counts for all of its cases so far. The case in which it happens is
    therefore tried again in a group of its own.

    Args:
        case: its name.
        control: handle of the control actor.
        fit: see `SharedGroup`.
        report: called with each report.

    Raises:
        Exception: what has ended the workers before the case was finished.
    """
    global _own
    while True:
        if _own is None or not _own.is_running:
            _own = SharedGroup(control, fit)
        is_first = _own.cases == 0
        try:
            return _own.run(case, report)
        except Exception:
            if is_first:
                raise


def close_own_group(timeout_s: float) -> None:
    """End the worker group of this process, if there is one."""
    if _own is not None and _own.is_running:
        _own.close(timeout_s)
