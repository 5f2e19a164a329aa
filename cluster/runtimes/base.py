"""Protocol of a runtime, and the errors that one may raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cluster.hardware import Target


class MeasurementError(Exception):
    """A latency could not be measured."""


class ProgramError(MeasurementError):
    """A runtime cannot compile or run something: it refuses, crashes, or takes its process along.

    Others may work, so the measurement goes on without.
    """


class LoadedProgram(Protocol):
    """A compiled module, ready to run."""

    def __call__(self, images: Tensor) -> Tensor:
        """The module's answer to `images`, shaped like the example it was compiled with."""
        ...

    def prepared(self, images: Tensor) -> Callable[[], object]:
        """What is timed: a call that computes the answer to `images` and does nothing else."""
        ...


class Runtime(Protocol):
    """Compiles modules for one target, loads what it compiled, and has the clock of the target."""

    name: str

    file_name: str
    """What a program is called where it is kept: `model.onnx`."""

    def __init__(self, target: Target) -> None: ...

    def version(self) -> str:
        """Version of the library that compiles and runs: latencies hold for one version.

        Raises:
            MeasurementError: the library is not installed; says how to get it.
        """
        ...

    def facts(self) -> Mapping[str, str | int | float]:
        """What this runtime knows of the hardware beyond `cluster.hardware.facts`: its driver, its
        clocks, the model of a phone. Empty where it knows nothing more."""
        ...

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        """`module` in evaluation mode, as a program for inputs shaped like `example`.

        The module is left as it is. BatchNorm is folded into convolutions, here or when the program
        is loaded.
        """
        ...

    def load(self, program: bytes) -> LoadedProgram:
        """The program that `compile` made, ready to run on the target.

        Raises:
            MeasurementError: it is no such program.
        """
        ...

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        """Milliseconds that a prepared call takes, `times` times in a row, by the target's clock.

        See `timing.host_ms`, which does for all that runs on this machine's processor.
        """
        ...

    def rest(self) -> None:
        """What the target needs between two rounds of samples: a phone cools down."""
        ...
