"""Runtimes: compile a module for a target and run it there.

Adding one is a class and a line in `RUNTIMES`. The classes import their libraries late: a driver
that only looks a name up here needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


class MeasurementError(Exception):
    """A latency could not be measured."""


class LoadedProgram(Protocol):
    """A compiled module, ready to run on this machine."""

    def __call__(self, images: Tensor) -> Tensor:
        """The module's answer to `images`, shaped like the example it was compiled with."""
        ...

    def prepared(self, images: Tensor) -> Callable[[], object]:
        """What is timed: a call that computes the answer to `images` and does nothing else."""
        ...


class Runtime(Protocol):
    """Compiles modules and loads what it compiled."""

    name: str

    def version(self) -> str:
        """Version of the library that compiles and runs: latencies hold for one version."""
        ...

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        """`module` in evaluation mode, as a program for inputs shaped like `example`."""
        ...

    def load(self, program: bytes, threads: int = 1) -> LoadedProgram:
        """The program that `compile` made, ready to run on `threads` threads."""
        ...


def _executorch() -> Runtime:
    from cluster.runtimes.executorch import ExecuTorch

    return ExecuTorch()


RUNTIMES: dict[str, Callable[[], Runtime]] = {"executorch": _executorch}
"""How to get a runtime, by the name that a target gives it."""
