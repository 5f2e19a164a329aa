"""Control actor of a job: messages between the driver and the workers of its cases.

The driver owns the actor. Workers report their progress to it, and the driver requests stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class WorkerProgress:
    """Progress of a worker in the current attempt at its case."""

    steps: int
    """Number of completed steps."""
    activity: str
    """Current activity; see `watchdog.py`."""


class ControlClient(Protocol):
    """Interface of the control actor as seen by a worker of one case."""

    def is_stopping(self) -> bool:
        """Whether the driver has requested a stop of the case."""
        ...

    def is_draining(self) -> bool:
        """Whether the node of this worker is about to be preempted."""
        ...

    def report(self, rank: int, progress: WorkerProgress) -> None:
        """Report the progress of worker `rank`."""
        ...

    def progress(self) -> dict[int, WorkerProgress]:
        """Last reported progress by rank; workers that have not reported yet are missing."""
        ...

    def record(self, values: dict[str, Any]) -> None:
        """Report an epoch, a network or a note to the driver; plain values."""
        ...

    def note(self, text: str) -> None:
        """Send a message to the driver. Blocks until the actor has it, so the worker may exit."""
        ...

    def fail(self, reason: str) -> None:
        """Report why the case ends without a result."""
        ...


CLOSED = "closed"
"""Answer to a worker group that gets no further cases."""


class ControlActor:
    """State shared by the driver and all workers. Runs as a Ray actor, in a single thread."""

    def __init__(self) -> None:
        self._is_stopping = False
        self._stopped: set[str] = set()
        self._running: set[str] = set()
        self._progress: dict[str, dict[int, tuple[int, str]]] = {}
        self._notes: dict[str, list[str]] = {}
        self._reasons: dict[str, str] = {}
        self._tasks: dict[str, dict[str, Any]] = {}
        self._assigned: dict[str, str] = {}
        self._records: dict[str, list[dict[str, Any]]] = {}
        self._closed: set[str] = set()

    def add_tasks(self, tasks: dict[str, dict[str, Any]]) -> None:
        """Store the inputs of cases, by name."""
        self._tasks.update(tasks)

    def assign(self, group: str, case: str) -> None:
        """Give a worker group a case to run. A group that had it before has been lost."""
        others = {name: known for name, known in self._assigned.items() if known != case}
        self._assigned = {**others, group: case}

    def task_of(self, group: str) -> dict[str, Any] | str | None:
        """Input of the case that a group has to run; None: none yet; CLOSED: none any more."""
        if group in self._assigned:
            return self._tasks[self._assigned[group]]
        return CLOSED if group in self._closed else None

    def finish(self, group: str) -> None:
        """Record that all workers of a group have ended their case."""
        self._assigned.pop(group, None)

    def close(self, group: str) -> None:
        """End a group after its current case."""
        self._closed.add(group)

    def is_assigned(self, case: str) -> bool:
        """Whether the workers of a group have yet to end a case."""
        return case in self._assigned.values()

    def record(self, case: str, values: dict[str, Any]) -> None:
        self._records.setdefault(case, []).append(values)

    def progress_of_group(self, group: str, case: str) -> tuple[bool, list[dict[str, Any]]]:
        """Whether a group is still running a case, and its reports since the last call."""
        return self._assigned.get(group) == case, self._records.pop(case, [])

    def stop(self, case: str | None = None) -> None:
        """Request a stop of one case; None: of all cases, including later ones."""
        if case is None:
            self._is_stopping = True
        else:
            self._stopped.add(case)

    def is_stopping(self, case: str) -> bool:
        return self._is_stopping or case in self._stopped

    def start(self, case: str) -> None:
        """Record that the trial of a case starts to train."""
        self._running.add(case)

    def end(self, case: str) -> None:
        """Record that the trial of a case has ended."""
        self._running.discard(case)

    def is_running(self, case: str) -> bool:
        return case in self._running

    def any_runs(self) -> bool:
        """Whether the trial of any case is training."""
        return bool(self._running)

    def report(self, case: str, rank: int, steps: int, activity: str) -> None:
        self._progress.setdefault(case, {})[rank] = (steps, activity)

    def progress(self, case: str) -> dict[int, tuple[int, str]]:
        return self._progress.get(case, {})

    def begin(self, case: str) -> None:
        """Start a new attempt: discard the progress of the previous one."""
        self._progress.pop(case, None)

    def note(self, case: str, text: str) -> None:
        self._notes.setdefault(case, []).append(text)

    def take_notes(self) -> list[tuple[str, str]]:
        """Return the notes since the last call, as (case, text), and clear them."""
        notes = [(case, text) for case, texts in self._notes.items() for text in texts]
        self._notes.clear()
        return notes

    def fail(self, case: str, reason: str) -> None:
        """Record why a case ended without a result."""
        self._reasons[case] = reason

    def reasons(self) -> dict[str, str]:
        return self._reasons


class RayControlClient:
    """Client of the control actor for one case.

    If the actor is gone or does not answer in time, calls do not raise: questions return False or
    an empty dict, and messages are lost.
    """

    def __init__(self, actor: Any, case: str) -> None:
        self._actor, self._case = actor, case

    def is_stopping(self) -> bool:
        return bool(self._call("is_stopping", self._case))

    def is_draining(self) -> bool:
        import ray
        from ray.exceptions import RayError

        from cluster.ray_internals import draining_nodes

        try:
            draining = draining_nodes()
        except RayError:
            return False
        return ray.get_runtime_context().get_node_id() in draining

    def report(self, rank: int, progress: WorkerProgress) -> None:
        self._actor.report.remote(self._case, rank, progress.steps, progress.activity)

    def progress(self) -> dict[int, WorkerProgress]:
        progress_by_rank = self._call("progress", self._case) or {}
        return {rank: WorkerProgress(*values) for rank, values in progress_by_rank.items()}

    def record(self, values: dict[str, Any]) -> None:
        self._call("record", self._case, values)

    def note(self, text: str) -> None:
        self._call("note", self._case, text)

    def begin(self) -> None:
        """Start a new attempt at the case."""
        self._call("begin", self._case)

    def fail(self, reason: str) -> None:
        self._call("fail", self._case, reason)

    def _call(self, method: str, *args: Any) -> Any:
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(getattr(self._actor, method).remote(*args), timeout=10)
        except RayError:
            return None


class NoControlClient:
    """Client for a case that runs without a driver: nothing requests a stop or reads reports."""

    def is_stopping(self) -> bool:
        return False

    def is_draining(self) -> bool:
        return False

    def report(self, rank: int, progress: WorkerProgress) -> None: ...

    def progress(self) -> dict[int, WorkerProgress]:
        return {}

    def record(self, values: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...

    def fail(self, reason: str) -> None: ...
