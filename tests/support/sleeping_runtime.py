"""A runtime whose programs sleep for a known time: the arithmetic of measuring, with real clocks.

A module takes a tenth of a millisecond for every hundred of its weights, and every call 0.3 ms
beside that. In processes that Ray starts it is there through `register`.
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
"""Names a file with lines `<kernel> once` or `<kernel> always`: programs that kill a process.
Compiling them kills it where 100 is added to the kernel."""
VERSION = "SLEEPING_VERSION"
PACE = ".pace"
"""Beside the file of deaths, with this at its end: a factor on all that is prepared from now on."""
REFUSED = 200
"""Added to a kernel, `once` and `always` are compilations that are refused."""

SLEEPER = Target(name="sleeper", runtime="sleeping")


def weights_ms(module: nn.Module) -> float:
    """What a module takes, the call aside."""
    return 1e-3 * sum(p.numel() for p in module.parameters() if p.dim() > 1)


def kernel_of(module: nn.Module) -> int:
    """The largest kernel in it."""
    return max((m.kernel_size[0] for m in module.modules() if isinstance(m, nn.Conv2d)), default=0)


class Sleeping:
    """See the head of the file."""

    name = "sleeping"
    file_name = "model.sleep"

    def __init__(self, target: Target) -> None:
        self.target = target

    def version(self) -> str:
        return os.environ.get(VERSION, "1")

    def facts(self) -> dict[str, Any]:
        return {"bed": "soft"}

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        if f"{REFUSED + kernel_of(module)} always" in told():
            raise TypeError("no bed is that wide\nsee the manual")
        die_if_told(100 + kernel_of(module))
        ms = weights_ms(module) * len(example)
        return json.dumps({"ms": ms, "kernel": kernel_of(module)}).encode()

    def load(self, program: bytes) -> Sleep:
        return Sleep(**json.loads(program))

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        return host_ms(call, times)

    def rest(self) -> None: ...


class Sleep:
    """A program."""

    def __init__(self, ms: float, kernel: int) -> None:
        self.seconds, self.kernel = (ms + OVERHEAD_MS) / 1e3, kernel

    def __call__(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 10)

    def prepared(self, _images: Tensor) -> Callable[[], object]:
        die_if_told(self.kernel)

        seconds = self.seconds * pace()

        def sleep() -> None:
            end = time.perf_counter() + seconds  # to the microsecond, where sleep is coarse
            while time.perf_counter() < end:
                pass

        return sleep


def told() -> list[str]:
    """Lines of the file of deaths."""
    file = Path(os.environ.get(DEATHS, "/nowhere"))
    return file.read_text().splitlines() if file.exists() else []


def pace() -> float:
    """By how much everything is slower at the moment."""
    file = Path(os.environ.get(DEATHS, "/nowhere") + PACE)
    return float(file.read_text()) if file.exists() else 1.0


def die_if_told(kernel: int) -> None:
    """Kill this process if the file says so."""
    lines = told()
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
