"""A stage of a case: checkpoints, stopping, time limit and reports around a training loop.

The loops of `nas_core` yield after every step, and this module acts in between. Collective actions
(save, stop, finish early) are requested by the first worker, and all workers receive the request
after the same step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import nn

from cluster.storage import Storage
from nas_core.progress import EpochReport, Progress
from nas_core.train_step import LossError
from orchestration.config.storage_layout import STAGE_END_FILE, STAGE_END_FORMAT
from orchestration.distributed.process_group import StepSignals, Stopped
from orchestration.distributed.watchdog import COMPUTING
from orchestration.stages.checkpoint import Checkpoints, Saved, checkpoint_name, snapshot
from orchestration.stages.context import WorkerContext
from orchestration.stages.meter import ThroughputMeter
from orchestration.state.checkpoint_index import is_ended

NOT_REPORTED = ("probs", "system")
"""Fields of an epoch record that are stored but not reported to the driver."""

DRAINING_SAVE_S = 10.0
"""Seconds between checkpoints after a preemption notice, i.e. the most that can be lost."""


class Trainable(Protocol):
    """Training loop with state, run by a `Stage`."""

    @property
    def progress(self) -> Progress: ...
    @property
    def module(self) -> nn.Module: ...
    @property
    def optimizers(self) -> list[torch.optim.Optimizer]: ...

    def state_dict(self) -> dict[str, Any]:
        """State other than progress and the tensors of module and optimizers; plain values."""
        ...

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Continue from `values`, as made by `state_dict`."""
        ...

    def steps(self) -> Iterator[EpochReport | None]:
        """The training loop, starting at the current progress."""
        ...


@dataclass(frozen=True)
class CheckpointLocation:
    """Folder of the checkpoints of a stage, and the checkpoint that it starts from."""

    folder: Storage
    """Folder of the checkpoints."""
    is_kept: bool = False
    """Whether the final checkpoint is kept for other cases and later runs."""
    origin: Storage | None = None
    """Folder of the finished stage to start from; None to start from the given state."""

    @property
    def is_done(self) -> bool:
        """Whether the final checkpoint exists."""
        return self.is_kept and is_ended(self.folder)

    def end(self) -> dict[str, Any] | None:
        """Content of the file that names the final checkpoint; None if it does not exist."""
        return self.folder.read_json(STAGE_END_FILE) if self.is_done else None


class Stage:
    """One stage of a case on one worker."""

    def __init__(
        self,
        context: WorkerContext,
        location: CheckpointLocation,
        work: Trainable,
        meter: ThroughputMeter,
        reported: dict[str, Any],
        max_hours: float | None = None,
    ) -> None:
        """Set up a stage; `run` executes it.

        Args:
            context: of the worker.
            location: of the checkpoints.
            work: the training loop.
            meter: of its loaders.
            reported: constant fields of every epoch report.
            max_hours: time limit after which the stage ends early.
        """
        self._context, self._work, self._meter, self._reported = context, work, meter, reported
        self._max_hours, self._cluster = max_hours, context.task.job.cluster
        self._location = location
        self._checkpoints = Checkpoints(location.folder, self._cluster.keep_checkpoints)
        self._saved_at, self._every_s = time.monotonic(), self._cluster.checkpoint_every_s
        self.history: list[dict[str, Any]] = []
        """Records of all epochs."""
        self.notes: list[str] = []
        """Notes for the user about the course of the stage."""

    def run(self) -> None:
        """Run to the end, resuming from the last good checkpoint; returns at once if already done.

        Raises:
            Stopped: the driver requested it.
            LossError: the loss was not finite again after a roll-back.
            CheckpointError: a checkpoint could not be written.
        """
        end = self._context.group.broadcast_from_first(self._location.end)
        name = self._go_back()
        if end is not None and end["checkpoint"] == name:
            self.notes[:] = end["notes"]
            return
        try:
            self._run_once()
        except LossError as error:
            if self._work.progress.lr_share < 1:
                raise
            self._roll_back(error)
            self._run_once()
        if self._location.is_kept:
            self._save()
        self._checkpoints.finish()
        if self._location.is_kept:
            self._keep_end()

    def _keep_end(self) -> None:
        """Mark the newest checkpoint as final, once all workers have written it."""
        self._context.group.barrier()
        if self._context.group.rank == 0:
            end = {"format": STAGE_END_FORMAT, "checkpoint": checkpoint_name(self._work.progress)}
            self._location.folder.write_json(STAGE_END_FILE, {**end, "notes": self.notes})
        self._context.group.barrier()

    def _run_once(self) -> None:
        group = self._context.group
        group.local_signals = self._local_signals
        with group.watchdog.inside(COMPUTING):
            for report in self._work.steps():
                self._meter.steps += 1
                if report is not None:
                    self._report(report)
                self._save_often_if_draining()
                signals, is_good = group.signals, self._work.progress.bad_steps == 0
                if (report is not None or signals.save or signals.stop) and is_good:
                    self._save()
                if signals.stop:
                    self._checkpoints.finish()
                    raise Stopped
                if signals.finish:
                    self._note_early_end()
                    break
        group.local_signals = StepSignals

    def _local_signals(self) -> StepSignals:
        """Signals of this worker. Only preemption is signalled by all, the rest by the first."""
        watchdog = self._context.group.watchdog
        if self._context.group.rank > 0:
            return StepSignals(drain=watchdog.is_draining)
        hours = self._max_hours
        return StepSignals(
            stop=watchdog.is_stopping,
            save=time.monotonic() - self._saved_at > self._every_s,
            finish=hours is not None and self._meter.hours() > hours,
            drain=watchdog.is_draining,
        )

    def _save_often_if_draining(self) -> None:
        """Save checkpoints more often after a preemption notice, and log that once."""
        if not self._context.group.signals.drain or self._every_s <= DRAINING_SAVE_S:
            return
        self._every_s = DRAINING_SAVE_S
        if self._context.group.rank == 0:
            self._context.control.note(
                f"a node will be preempted; a checkpoint every {DRAINING_SAVE_S:g} s until then"
            )

    def _report(self, report: EpochReport) -> None:
        record = {**asdict(report), **self._meter.of_epoch()}
        self.history.append(record)
        left = self._reported["epochs"] - report.epoch - 1
        shared = {name: value for name, value in record.items() if name not in NOT_REPORTED}
        self._context.report({**shared, **self._reported, "eta_s": left * record["seconds"]})

    def _note_early_end(self) -> None:
        progress, epochs = self._work.progress, self._reported["epochs"]
        self.notes.append(
            f"the search ended after {self._meter.hours():.2g} hours (max_hours is "
            f"{self._max_hours:g}), in epoch {progress.epoch + 1} of {epochs}"
        )

    def _save(self) -> None:
        context, progress = self._context, self._work.progress
        clock = {"seconds": 3600 * self._meter.hours(), "steps": self._meter.steps}
        counters = {**self._work.state_dict(), **clock}
        self._checkpoints.save(
            snapshot(
                progress,
                self._work.module,
                self._work.optimizers,
                counters=counters,
                history=self.history,
                rank=context.group.rank,
                size=context.group.size,
            )
        )
        self._saved_at = time.monotonic()

    def _go_back(self) -> str:
        """Restore the newest good checkpoint, the same on all workers; returns its name or ""."""
        origin = self._location.origin
        name = self._restore_newest(self._checkpoints)
        if name or origin is None:
            return name
        self.notes[:] = origin.read_json(STAGE_END_FILE)["notes"]
        return self._restore_newest(Checkpoints(origin))

    def _restore_newest(self, checkpoints: Checkpoints) -> str:
        context = self._context
        name = context.group.broadcast_from_first(
            lambda: checkpoints.newest_good(context.control.note) or ""
        )
        if name:
            self._restore(
                checkpoints.load(name, context.group.rank, context.group.size, context.device)
            )
        return name

    def _restore(self, saved: Saved) -> None:
        work = self._work
        saved.load_into(work.progress, work.module, work.optimizers)
        work.load_state_dict(saved.counters)
        self.history[:] = saved.history
        self._meter.seconds = saved.counters["seconds"]
        self._meter.steps = saved.counters["steps"]

    def _roll_back(self, error: LossError) -> None:
        """Restore the last checkpoint before the non-finite loss and halve the learning rate."""
        self._checkpoints.finish()
        if not self._go_back():
            raise error
        progress = self._work.progress
        progress.lr_share, progress.bad_steps = 0.5, 0
        position = f"epoch {progress.epoch + 1}, step {progress.step + 1}"
        note = f"{error}; back to {position}, with half the learning rate"
        self.notes.append(note)
        self._context.report({"note": note})
