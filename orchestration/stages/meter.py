"""Time of a stage, divided into computing, waiting for images, and communication."""

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
    """A loader that measures how long training waits for batches."""

    loader: Loader
    waited_s: float = 0.0
    images: int = 0
    """Images in all batches so far, counted over all workers."""

    @property
    def steps(self) -> int:
        """Number of batches per epoch."""
        return self.loader.steps

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches of the wrapped loader."""
        batches = self.loader.batches(start)
        while True:
            began = time.perf_counter()
            batch = next(batches)
            self.waited_s += time.perf_counter() - began
            self.images += batch.total
            yield batch


@dataclass
class ThroughputMeter:
    """Throughput of an epoch, and the shares of data and communication in its time."""

    context: WorkerContext
    loaders: list[TimedLoader]
    seconds: float = 0.0
    """Seconds of the stage up to the last epoch, including earlier attempts."""
    steps: int = 0
    """Steps of this epoch, including earlier attempts that were checkpointed; scored networks for
    strategies that score networks."""
    machine: Machine | None = field(init=False)
    """Source of system metrics; None unless the job records them."""
    _began: float = field(default_factory=time.perf_counter)
    _before: tuple[float, float, int] = field(init=False)

    def __post_init__(self) -> None:
        self._before = self._waits()  # the group's counter includes earlier stages
        self.machine = Machine() if self.context.task.job.record.system_metrics else None

    def of_epoch(self) -> dict[str, Any]:
        """Measurements since the last call: seconds, steps, throughput, shares of waiting."""
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
        """Hours of the stage so far, including earlier attempts."""
        return (self.seconds + time.perf_counter() - self._began) / 3600


MEGABYTE = 1e6


class Machine:
    """System metrics of this machine, under MLflow's names."""

    def __init__(self) -> None:
        """Start to measure."""
        self._network: Any = psutil.net_io_counters()
        psutil.cpu_percent()  # starts the interval of the next call

    def use(self) -> dict[str, float]:
        """Metrics by name: load since the last call (percent), memory, and traffic since the last
        call (megabytes). Covers the GPUs visible to this process."""
        memory = psutil.virtual_memory()
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            **self._traffic(),
            **_gpus(),
        }

    def _traffic(self) -> dict[str, float]:
        """Network traffic since the last call; empty without network interfaces."""
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

    metrics: dict[str, float] = {}
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        metrics[f"gpu_{number}_memory_usage_megabytes"] = (total - free) / MEGABYTE
        metrics[f"gpu_{number}_memory_usage_percentage"] = 100 * (1 - free / total)
        metrics |= _gpu_load(torch, number)
    return metrics


def _gpu_load(torch: Any, number: int) -> dict[str, float]:
    """Utilization of a GPU; empty if NVML is missing or fails."""
    try:
        return {f"gpu_{number}_utilization_percentage": float(torch.cuda.utilization(number))}
    except Exception:  # NVML has its own errors, and a metric must not end an epoch
        return {}
