"""A stage of a case, step by step: checkpoints, stopping, time, and what a person is told.

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
from orchestration.distributed.process_group import Stopped, Wishes, report_epoch, report_note
from orchestration.distributed.watchdog import COMPUTING
from orchestration.stages.checkpoint import Checkpoints, Saved, checkpoint_name, snapshot
from orchestration.stages.context import Crew
from orchestration.stages.meter import Meter
from orchestration.state.checkpoint_index import END, is_ended

UNTOLD = ("probs", "system")
"""Of an epoch, what is kept and not shown to anybody while it runs."""

LEAVING_S = 10.0
"""Between checkpoints once a node is announced to be taken away: no more than that is lost."""


class Work(Protocol):
    """What a stage trains."""

    @property
    def progress(self) -> Progress: ...
    @property
    def module(self) -> nn.Module: ...
    @property
    def optimizers(self) -> list[torch.optim.Optimizer]: ...

    def counters(self) -> dict[str, Any]:
        """What it remembers beside tensors and progress; plain values."""
        ...

    def restore(self, counters: dict[str, Any]) -> None:
        """The inverse."""
        ...

    def steps(self) -> Iterator[EpochReport | None]:
        """The loop, from where the progress is."""
        ...


@dataclass(frozen=True)
class Ground:
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


class Stage:
    """One stage of a case on one worker."""

    def __init__(
        self,
        crew: Crew,
        ground: Ground,
        work: Work,
        meter: Meter,
        shown: dict[str, Any],
        max_hours: float | None = None,
    ) -> None:
        """Describe it; `run` does it.

        Args:
            crew: the surroundings.
            ground: where its checkpoints lie.
            work: what is trained.
            meter: of its loaders.
            shown: what every reported epoch says beside what happened in it.
            max_hours: after which the stage ends, done or not.
        """
        self._crew, self._work, self._meter, self._shown = crew, work, meter, shown
        self._max_hours, self._cluster = max_hours, crew.work.job.cluster
        self._ground = ground
        self._checkpoints = Checkpoints(ground.folder, self._cluster.keep_checkpoints)
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
        is_done = self._ground.is_done
        self._crew.team.wait()  # until all have looked, or one would see what another has written
        name = self._go_back()
        if is_done and (end := self._ground.folder.read_json(END))["checkpoint"] == name:
            self.notes[:] = end["notes"]
            return
        try:
            self._run_once()
        except LossError as error:
            if self._work.progress.lr_share < 1:
                raise
            self._roll_back(error)
            self._run_once()
        if self._ground.is_kept:
            self._save()
        self._checkpoints.finish()
        if self._ground.is_kept:
            self._keep_end()

    def _keep_end(self) -> None:
        """Say that the newest checkpoint is the end, once all workers have written it."""
        self._crew.team.wait()
        if self._crew.team.rank == 0:
            end = {"format": "stage-end/1", "checkpoint": checkpoint_name(self._work.progress)}
            self._ground.folder.write_json(END, {**end, "notes": self.notes})
        self._crew.team.wait()

    def _run_once(self) -> None:
        team = self._crew.team
        team.wish = self._wish
        with team.watch.inside(COMPUTING):
            for report in self._work.steps():
                self._meter.steps += 1
                if report is not None:
                    self._report(report)
                self._hear_of_leaving()
                heard, is_good = team.heard, self._work.progress.bad_steps == 0
                if (report is not None or heard.save or heard.stop) and is_good:
                    self._save()
                if heard.stop:
                    self._checkpoints.finish()
                    raise Stopped
                if heard.finish:
                    self._say_early()
                    break
        team.wish = Wishes

    def _wish(self) -> Wishes:
        """All say if they are going to be taken away; the rest is the first worker's to wish."""
        watch = self._crew.team.watch
        if self._crew.team.rank > 0:
            return Wishes(leave=watch.is_leaving)
        hours = self._max_hours
        return Wishes(
            stop=watch.is_stopping,
            save=time.monotonic() - self._saved_at > self._every_s,
            finish=hours is not None and self._meter.hours() > hours,
            leave=watch.is_leaving,
        )

    def _hear_of_leaving(self) -> None:
        """Save more often from now on, and say it once."""
        if not self._crew.team.heard.leave or self._every_s <= LEAVING_S:
            return
        self._every_s = LEAVING_S
        if self._crew.team.rank == 0:
            self._crew.board.note(
                f"a node is going to be taken away; a checkpoint every {LEAVING_S:g} s until then"
            )

    def _report(self, report: EpochReport) -> None:
        record = {**asdict(report), **self._meter.of_epoch()}
        self.history.append(record)
        left = self._shown["epochs"] - report.epoch - 1
        told = {name: value for name, value in record.items() if name not in UNTOLD}
        report_epoch({**told, **self._shown, "eta_s": left * record["seconds"]})

    def _say_early(self) -> None:
        progress, epochs = self._work.progress, self._shown["epochs"]
        self.notes.append(
            f"the search ended after {self._meter.hours():.2g} hours (max_hours is "
            f"{self._max_hours:g}), in epoch {progress.epoch + 1} of {epochs}"
        )

    def _save(self) -> None:
        crew, progress = self._crew, self._work.progress
        clock = {"seconds": 3600 * self._meter.hours(), "steps": self._meter.steps}
        counters = {**self._work.counters(), **clock}
        self._checkpoints.save(
            snapshot(
                progress,
                self._work.module,
                self._work.optimizers,
                counters=counters,
                history=self.history,
                rank=crew.team.rank,
                size=crew.team.size,
            )
        )
        self._saved_at = time.monotonic()

    def _go_back(self) -> str:
        """To the newest good checkpoint, the same on all workers; its name, or nothing."""
        origin = self._ground.origin
        name = self._restore_newest(self._checkpoints)
        if name or origin is None:
            return name
        self.notes[:] = origin.read_json(END)["notes"]
        return self._restore_newest(Checkpoints(origin))

    def _restore_newest(self, checkpoints: Checkpoints) -> str:
        crew, name = self._crew, ""
        if crew.team.rank == 0:
            name = checkpoints.newest_good(crew.board.note) or ""
        name = crew.team.gather(name)[0]
        if name:
            self._restore(checkpoints.load(name, crew.team.rank, crew.team.size, crew.device))
        return name

    def _restore(self, saved: Saved) -> None:
        work = self._work
        saved.load_into(work.progress, work.module, work.optimizers)
        work.restore(saved.counters)
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
