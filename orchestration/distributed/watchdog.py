"""Watchdog thread of a worker: polls for stop requests, reports progress, and ends hung processes.

A hang is a step that does not end. Either this worker hangs, or it waits in a collective for one
that does; the control actor has the progress of all workers and tells which. The watchdog then ends
the process, because a thread that blocks inside a library cannot be interrupted, and Ray Train
restarts the workers from the last checkpoint.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestration.distributed.control_actor import ControlClient, WorkerProgress

POLL_S = 1.0
COMPUTING, WAITING, BUSY = "computing", "waiting for other workers", "busy"
HUNG = 75
"""Exit code of a process that was ended because of a hang."""


class Watchdog:
    """Background thread that checks the progress of one worker once a second."""

    def __init__(self, control: ControlClient, rank: int, hang_timeout_s: float) -> None:
        self.is_stopping = False
        """Whether the driver has requested a stop."""
        self.is_draining = False
        """Whether the node of this worker is about to be preempted."""
        self._control, self._rank, self._timeout_s = control, rank, hang_timeout_s
        self._steps, self._activity, self._since = 0, BUSY, time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """Stop the thread and wait for it."""
        self._ended.set()
        self._thread.join()

    def step_done(self) -> None:
        """Count a step."""
        self._steps += 1
        self._since = time.monotonic()

    @contextmanager
    def inside(self, activity: str) -> Iterator[None]:
        """Set the activity of the worker inside the block, and restart the timeout."""
        before, self._activity = self._activity, activity
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._activity, self._since = before, time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark the block as waiting for other workers.

        Has no effect outside of a stage, where waiting may take long: the first worker measures and
        exports.
        """
        if self._activity == BUSY:
            yield
            return
        with self.inside(WAITING):
            yield

    def _look(self) -> None:
        pause = min(POLL_S, self._timeout_s / 10)
        while not self._ended.wait(pause):
            self._control.report(self._rank, WorkerProgress(self._steps, self._activity))
            self.is_stopping = self.is_stopping or self._control.is_stopping()
            self.is_draining = self.is_draining or self._control.is_draining()
            stuck_s = time.monotonic() - self._since
            if self._activity != BUSY and stuck_s > self._timeout_s:
                self._give_up(stuck_s)

    def _give_up(self, stuck_s: float) -> None:
        who = self._who()
        text = (
            f"{who} hangs: no step was done for {stuck_s:.0f} s "
            f"(cluster.hang_timeout_s is {self._timeout_s:g}); its group is started again"
        )
        sys.stderr.write(f"{text}\n")
        faulthandler.dump_traceback(file=sys.stderr)
        self._control.note(text)
        os._exit(HUNG)

    def _who(self) -> str:
        """Names of the workers that hang: behind in steps, or computing while others wait."""
        if self._activity == COMPUTING:
            return f"worker {self._rank}"
        workers = self._control.progress()
        fewest = min((worker.steps for worker in workers.values()), default=0)
        late = [rank for rank, worker in workers.items() if worker.steps < self._steps] or [
            rank
            for rank, worker in workers.items()
            if worker.steps == fewest and worker.activity != WAITING and rank != self._rank
        ]
        if not late:
            return "a worker that cannot be identified"
        return " and ".join(f"worker {rank}" for rank in sorted(late))
