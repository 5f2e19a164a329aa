"""A runtime whose programs sleep for a known time, for testing measurements with real clocks.

A module takes a tenth of a millisecond per hundred weights, and every call takes 0.3 ms more. Call
`register` to make the runtime known in processes that Ray starts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cluster.hardware import BACKENDS, DEVICES, PRECISIONS, Target
from cluster.runtimes import RUNTIMES
from cluster.runtimes.timing import host_ms

OVERHEAD_MS = 0.3
DEATHS = "SLEEPING_DEATHS"
"""Environment variable with a file of lines `<kernel> once` or `<kernel> always`: programs with
this kernel size kill their process when run. With 100 added to it, compiling kills the process.
"""
VERSION = "SLEEPING_VERSION"
PACE = ".pace"
"""Suffix of a second file, which has a factor on the time of all calls prepared from now on."""
REFUSED = 200
"""Added to a kernel size in the file: compiling such a module raises an error."""

SLEEPER = Target(name="sleeper", runtime="sleeping")


def weights_ms(module: nn.Module) -> float:
    """Milliseconds that a module takes, without the overhead of a call."""
    return 1e-3 * sum(p.numel() for p in module.parameters() if p.dim() > 1)


def kernel_of(module: nn.Module) -> int:
    """Largest kernel size in a module."""
    return max((m.kernel_size[0] for m in module.modules() if isinstance(m, nn.Conv2d)), default=0)


class Sleeping:
    """The sleeping runtime; see the head of this file."""

    name = "sleeping"
    file_name = "model.sleep"

    def __init__(self, target: Target) -> None:
        self.target = target

    def version(self) -> str:
        return os.environ.get(VERSION, "1")

    def facts(self) -> dict[str, Any]:
        return {"bed": "soft"}

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        if f"{REFUSED + kernel_of(module)} always" in faults():
            raise TypeError("no bed is that wide\nsee the manual")
        die_if_listed(100 + kernel_of(module))
        ms = weights_ms(module) * len(example)
        return json.dumps({"ms": ms, "kernel": kernel_of(module)}).encode()

    def load(self, program: bytes) -> Sleep:
        return Sleep(**json.loads(program))

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        return host_ms(call, times)

    def rest(self) -> None: ...


class Sleep:
    """A program that sleeps."""

    def __init__(self, ms: float, kernel: int) -> None:
        self.seconds, self.kernel = (ms + OVERHEAD_MS) / 1e3, kernel

    def __call__(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 10)

    def prepared(self, _images: Tensor) -> Callable[[], object]:
        die_if_listed(self.kernel)

        seconds = self.seconds * pace()

        def sleep() -> None:
            end = (
                time.perf_counter() + seconds
            )  # busy waiting is exact to a microsecond, sleep is not
            while time.perf_counter() < end:
                pass

        return sleep


def faults() -> list[str]:
    """Lines of the file of faults."""
    file = Path(os.environ.get(DEATHS, "/nowhere"))
    return file.read_text().splitlines() if file.exists() else []


def pace() -> float:
    """Current factor on the time of all calls."""
    file = Path(os.environ.get(DEATHS, "/nowhere") + PACE)
    return float(file.read_text()) if file.exists() else 1.0


def die_if_listed(kernel: int) -> None:
    """Kill this process if the file lists the kernel size."""
    lines = faults()
    for line in lines:
        number, how = line.split()
        if int(number) == kernel:
            if how == "once":
                Path(os.environ[DEATHS]).write_text(
                    "\n".join(other for other in lines if other != line)
                )
            os._exit(1)


def register() -> None:
    """Make the runtime known in this process."""
    RUNTIMES["sleeping"] = Sleeping
    BACKENDS["sleeping"] = "sleep"
    DEVICES["sleeping"] = ("cpu",)
    PRECISIONS["sleeping"] = ("fp32",)
