"""Where the time of a stage goes: computing, waiting for images, talking to other workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nas_core.batch import Batch, Loader
from orchestration.stages.machine import Machine
from orchestration.stages.worker import Crew


@dataclass
class TimedLoader:
    """A loader that counts the seconds for which training waits for it."""

    loader: Loader
    waited_s: float = 0.0
    images: int = 0
    """Handed out, of all workers."""

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        return self.loader.steps

    def batches(self, start: int) -> Iterator[Batch]:
        """Those of the loader."""
        batches = self.loader.batches(start)
        while True:
            began = time.perf_counter()
            batch = next(batches)
            self.waited_s += time.perf_counter() - began
            self.images += batch.total
            yield batch


@dataclass
class Meter:
    """Where the time of an epoch goes."""

    crew: Crew
    loaders: list[TimedLoader]
    seconds: float = 0.0
    """Of the stage, attempts before this one included."""
    steps: int = 0
    """Of the epoch so far, those of attempts before included that were not lost; networks, where
    those are scored."""
    machine: Machine | None = field(init=False)
    """Watched where the job asks for it."""
    _began: float = field(default_factory=time.perf_counter)
    _before: tuple[float, float, int] = field(init=False)

    def __post_init__(self) -> None:
        self._before = self._waits()  # the team has waited in stages before this one
        self.machine = Machine() if self.crew.work.job.record.system_metrics else None

    def of_epoch(self) -> dict[str, Any]:
        """Seconds, steps, images a second, and the parts of data and communication since the last
        call."""
        now = time.perf_counter()
        seconds = now - self._began
        waits = self._waits()
        data, talk, images = (b - a for a, b in zip(self._before, waits, strict=True))
        self._began, self._before = now, waits
        self.seconds += seconds
        steps, self.steps = self.steps, 0
        return {
            "seconds": seconds,
            "time": time.time(),
            "steps": steps,
            "gpus": self.crew.team.size * self.crew.work.gpus,
            "images_per_s": images / seconds,
            "share_data": data / seconds,
            "share_communication": talk / seconds,
            **({} if self.machine is None else {"system": self.machine.use()}),
        }

    def _waits(self) -> tuple[float, float, int]:
        data = sum(loader.waited_s for loader in self.loaders)
        return data, self.crew.team.waited_s, sum(loader.images for loader in self.loaders)

    def hours(self) -> float:
        """Of the stage so far."""
        return (self.seconds + time.perf_counter() - self._began) / 3600
