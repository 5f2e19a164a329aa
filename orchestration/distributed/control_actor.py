"""The control of a job: what its driver and the workers of its cases tell each other meanwhile.

An actor of the driver. Workers write how far they are, the driver writes that all are to stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class WorkerProgress:
    """How far a worker is."""

    steps: int
    """Done in this attempt."""
    activity: str
    """What it does just now."""


class ControlClient(Protocol):
    """What a worker sees of the control."""

    def is_stopping(self) -> bool:
        """Whether the driver wants the case to stop."""
        ...

    def is_leaving(self) -> bool:
        """Whether the node of this worker is announced to be taken away."""
        ...

    def report(self, rank: int, progress: WorkerProgress) -> None:
        """Write how far worker `rank` is."""
        ...

    def progress(self) -> dict[int, WorkerProgress]:
        """How far the workers are, by rank; those that have written."""
        ...

    def note(self, text: str) -> None:
        """Hand the driver a sentence, also where this worker is about to end."""
        ...

    def fail(self, reason: str) -> None:
        """Say why the case ends without a result."""
        ...


class ControlActor:
    """What everybody wrote; an actor, so that one thread changes it."""

    def __init__(self) -> None:
        self._is_stopping = False
        self._stopped: set[str] = set()
        self._running: set[str] = set()
        self._progress: dict[str, dict[int, tuple[int, str]]] = {}
        self._notes: dict[str, list[str]] = {}
        self._reasons: dict[str, str] = {}

    def stop(self, case: str | None = None) -> None:
        """A case is to stop; without a name, all are."""
        if case is None:
            self._is_stopping = True
        else:
            self._stopped.add(case)

    def is_stopping(self, case: str) -> bool:
        return self._is_stopping or case in self._stopped

    def start(self, case: str) -> None:
        """The trial of a case begins to train."""
        self._running.add(case)

    def end(self, case: str) -> None:
        """It has ended."""
        self._running.discard(case)

    def is_running(self, case: str) -> bool:
        return case in self._running

    def any_runs(self) -> bool:
        """Whether the trial of some case trains."""
        return bool(self._running)

    def report(self, case: str, rank: int, steps: int, activity: str) -> None:
        self._progress.setdefault(case, {})[rank] = (steps, activity)

    def progress(self, case: str) -> dict[int, tuple[int, str]]:
        return self._progress.get(case, {})

    def begin(self, case: str) -> None:
        """A new attempt: what workers of the last one wrote is no longer true."""
        self._progress.pop(case, None)

    def note(self, case: str, text: str) -> None:
        self._notes.setdefault(case, []).append(text)

    def take_notes(self) -> list[tuple[str, str]]:
        """(case, note) since the last call."""
        found = [(case, text) for case, texts in self._notes.items() for text in texts]
        self._notes.clear()
        return found

    def fail(self, case: str, reason: str) -> None:
        """Why a case ended without a result."""
        self._reasons[case] = reason

    def reasons(self) -> dict[str, str]:
        return self._reasons


class RayControlClient:
    """The control of one case, through the handle of the actor. An actor that is gone is silent."""

    def __init__(self, actor: Any, case: str) -> None:
        self._actor, self._case = actor, case

    def is_stopping(self) -> bool:
        return bool(self._ask("is_stopping", self._case))

    def is_leaving(self) -> bool:
        import ray
        from ray.exceptions import RayError

        from cluster.ray_internals import draining_nodes

        try:
            leaving = draining_nodes()
        except RayError:
            return False
        return ray.get_runtime_context().get_node_id() in leaving

    def report(self, rank: int, progress: WorkerProgress) -> None:
        self._actor.report.remote(self._case, rank, progress.steps, progress.activity)

    def progress(self) -> dict[int, WorkerProgress]:
        found = self._ask("progress", self._case) or {}
        return {rank: WorkerProgress(*values) for rank, values in found.items()}

    def note(self, text: str) -> None:
        self._ask("note", self._case, text)

    def begin(self) -> None:
        """A new attempt at the case."""
        self._ask("begin", self._case)

    def fail(self, reason: str) -> None:
        self._ask("fail", self._case, reason)

    def _ask(self, method: str, *words: Any) -> Any:
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(getattr(self._actor, method).remote(*words), timeout=10)
        except RayError:
            return None


class NoControlClient:
    """For a case without a driver."""

    def is_stopping(self) -> bool:
        return False

    def is_leaving(self) -> bool:
        return False

    def report(self, rank: int, progress: WorkerProgress) -> None: ...

    def progress(self) -> dict[int, WorkerProgress]:
        return {}

    def note(self, text: str) -> None: ...

    def fail(self, reason: str) -> None: ...
