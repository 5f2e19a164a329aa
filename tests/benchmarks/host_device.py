"""CPU in place of a GPU, to check that a GPU benchmark runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch


class HostEvent:
    """Event with the time at which it was recorded: a CPU has no queue."""

    def __init__(self) -> None:
        self._at_s = 0.0

    def record(self) -> None:
        self._at_s = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: HostEvent) -> float:
        return (end._at_s - self._at_s) * 1e3


class HostDevice:
    """CPU with the interface of `cluster.runtimes.cuda_device.Device`.

    A replay calls the captured function again.
    """

    place = "cpu"

    def facts(self) -> dict[str, str | int | float]:
        return {"gpu": "none, a processor in its place"}

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        replay: Callable[[], object] = torch.no_grad()(run)
        return replay

    def event(self) -> HostEvent:
        return HostEvent()

    def synchronize(self) -> None:
        pass
