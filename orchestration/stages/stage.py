"""A stage of a case, step by step: checkpoints, stopping, time, and what a person is shared.

The loops of `nas_core` yield after every step; here is what happens in between. What all workers
have to do together (save, stop, end in time) is wished by the first, heard by all after the same
step, and done by all.
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
from orchestration.distributed.process_group import StepSignals, Stopped, report_epoch, report_note
from orchestration.distributed.watchdog import COMPUTING
from orchestration.stages.checkpoint import Checkpoints, Saved, checkpoint_name, snapshot
from orchestration.stages.context import WorkerContext
from orchestration.stages.meter import ThroughputMeter
from orchestration.state.checkpoint_index import is_ended

NOT_REPORTED = ("probs", "system")
"""Of an epoch, what is kept and not shown to anybody while it runs."""

LEAVING_S = 10.0
"""Between checkpoints once a node is announced to be taken away: no more than that is lost."""


class Trainable(Protocol):
    """What a stage trains."""

    @property
    def progress(self) -> Progress: ...
    @property
    def module(self) -> nn.Module: ...
    @property
    def optimizers(self) -> list[torch.optim.Optimizer]: ...

    def state_dict(self) -> dict[str, Any]:
        """State beside the tensors of module and optimizers and the progress; plain values."""
        ...

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Continue from `values`, as made by `state_dict`."""
        ...

    def steps(self) -> Iterator[EpochReport | None]:
        """The loop, from where the progress is."""
        ...


@dataclass(frozen=True)
class CheckpointLocation:
    """Where a stage keeps its checkpoints, and where it begins."""

    folder: Storage
    """Of its checkpoints."""
    is_kept: bool = False
    """Whether its end is kept there, for stages of other cases and times."""
    origin: Storage | None = None
    """Folder of the kept stage whose end it begins with; None: with what it is given."""

    @property
    def is_done(self) -> bool:
        """Whether its end is there."""
        return self.is_kept and is_ended(self.folder)

    def end(self) -> dict[str, Any] | None:
        """Content of the file that says which checkpoint is the end; None if it is not there."""
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
        """Describe it; `run` does it.

        Args:
            context: the surroundings.
            location: where its checkpoints lie.
            work: what is trained.
            meter: of its loaders.
            reported: what every reported epoch says beside what happened in it.
            max_hours: after which the stage ends, done or not.
        """
        self._context, self._work, self._meter, self._reported = context, work, meter, reported
        self._max_hours, self._cluster = max_hours, context.task.job.cluster
        self._location = location
        self._checkpoints = Checkpoints(location.folder, self._cluster.keep_checkpoints)
        self._saved_at, self._every_s = time.monotonic(), self._cluster.checkpoint_every_s
        self.history: list[dict[str, Any]] = []
        """What happened in every epoch."""
        self.notes: list[str] = []
        """What a person should know about how it went."""

    def run(self) -> None:
        """Go on from the last good checkpoint to the end; nothing is left to do where that is kept.

        Raises:
            Stopped: the driver wanted that.
            LossError: the loss was not finite, once more after a roll-back.
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
        """Say that the newest checkpoint is the end, once all workers have written it."""
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
                self._notice_leaving()
                heard, is_good = group.signals, self._work.progress.bad_steps == 0
                if (report is not None or heard.save or heard.stop) and is_good:
                    self._save()
                if heard.stop:
                    self._checkpoints.finish()
                    raise Stopped
                if heard.finish:
                    self._note_early_end()
                    break
        group.local_signals = StepSignals

    def _local_signals(self) -> StepSignals:
        """All say if they are going to be taken away; the rest is decided by the first worker."""
        watchdog = self._context.group.watchdog
        if self._context.group.rank > 0:
            return StepSignals(leave=watchdog.is_leaving)
        hours = self._max_hours
        return StepSignals(
            stop=watchdog.is_stopping,
            save=time.monotonic() - self._saved_at > self._every_s,
            finish=hours is not None and self._meter.hours() > hours,
            leave=watchdog.is_leaving,
        )

    def _notice_leaving(self) -> None:
        """Save more often from now on, and say it once."""
        if not self._context.group.signals.leave or self._every_s <= LEAVING_S:
            return
        self._every_s = LEAVING_S
        if self._context.group.rank == 0:
            self._context.control.note(
                f"a node is going to be taken away; a checkpoint every {LEAVING_S:g} s until then"
            )

    def _report(self, report: EpochReport) -> None:
        record = {**asdict(report), **self._meter.of_epoch()}
        self.history.append(record)
        left = self._reported["epochs"] - report.epoch - 1
        shared = {name: value for name, value in record.items() if name not in NOT_REPORTED}
        report_epoch({**shared, **self._reported, "eta_s": left * record["seconds"]})

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
        """To the newest good checkpoint, the same on all workers; its name, or nothing."""
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
        """Once: to the last checkpoint before the loss was not finite, with half the rate."""
        self._checkpoints.finish()
        if not self._go_back():
            raise error
        progress = self._work.progress
        progress.lr_share, progress.bad_steps = 0.5, 0
        place = f"epoch {progress.epoch + 1}, step {progress.step + 1}"
        note = f"{error}; back to {place}, with half the learning rate"
        self.notes.append(note)
        report_note(note)
