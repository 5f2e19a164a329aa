"""Where the time of a stage goes: computing, waiting for images, talking to other workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil

from nas_core.batch import Batch, Loader
from orchestration.stages.context import WorkerContext


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
class ThroughputMeter:
    """Where the time of an epoch goes."""

    context: WorkerContext
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
        self._before = self._waits()  # the group has waited in stages before this one
        self.machine = Machine() if self.context.task.job.record.system_metrics else None

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
            "gpus": self.context.group.size * self.context.task.gpus,
            "images_per_s": images / seconds,
            "share_data": data / seconds,
            "share_communication": talk / seconds,
            **({} if self.machine is None else {"system": self.machine.use()}),
        }

    def _waits(self) -> tuple[float, float, int]:
        data = sum(loader.waited_s for loader in self.loaders)
        return data, self.context.group.waited_s, sum(loader.images for loader in self.loaders)

    def hours(self) -> float:
        """Of the stage so far."""
        return (self.seconds + time.perf_counter() - self._began) / 3600


MEGABYTE = 1e6


class Machine:
    """The machine that this process runs on. Names are those that MLflow itself gives them."""

    def __init__(self) -> None:
        """Begin to watch it."""
        self._network: Any = psutil.net_io_counters()
        psutil.cpu_percent()  # what it says next is of the time since this call

    def use(self) -> dict[str, float]:
        """Load since the last call, in percent; memory now, and what was sent and received since,
        in megabytes. GPUs are those that this process may use."""
        memory = psutil.virtual_memory()
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            **self._traffic(),
            **_gpus(),
        }

    def _traffic(self) -> dict[str, float]:
        """Nothing where there are no interfaces."""
        before = self._network
        self._network = now = psutil.net_io_counters()
        if before is None or now is None:
            return {}
        return {
            "network_receive_megabytes": (now.bytes_recv - before.bytes_recv) / MEGABYTE,
            "network_transmit_megabytes": (now.bytes_sent - before.bytes_sent) / MEGABYTE,
        }


def _gpus() -> dict[str, float]:
    import torch

    found: dict[str, float] = {}
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found[f"gpu_{number}_memory_usage_megabytes"] = (total - free) / MEGABYTE
        found[f"gpu_{number}_memory_usage_percentage"] = 100 * (1 - free / total)
        found |= _gpu_load(torch, number)
    return found


def _gpu_load(torch: Any, number: int) -> dict[str, float]:
    """Nothing where the library that tells it (NVML) is not installed or does not."""
    try:
        return {f"gpu_{number}_utilization_percentage": float(torch.cuda.utilization(number))}
    except Exception:  # it has errors of its own, and no epoch ends for a figure
        return {}
