"""Interface of runtimes, which compile and time modules on a target, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cluster.hardware import Target


class MeasurementError(Exception):
    """A latency could not be measured."""


class ProgramError(MeasurementError):
    """A program cannot be compiled or run: the runtime rejects it, crashes, or kills its process.

    Other programs may still work, so the measurement continues without this one.
    """


class LoadedProgram(Protocol):
    """A compiled module, ready to run."""

    def __call__(self, images: Tensor) -> Tensor:
        """Output for `images`, which must have the shape of the example used to compile."""
        ...

    def prepared(self, images: Tensor) -> Callable[[], object]:
        """Return a callable for timing that only computes the output for `images`."""
        ...


class Runtime(Protocol):
    """Compiles modules for one target, loads the programs, and times them with its clock."""

    name: str

    file_name: str
    """File name of a stored program, e.g. `model.onnx`."""

    def __init__(self, target: Target) -> None: ...

    def version(self) -> str:
        """Version of the runtime's library. Latencies are valid for one version only.

        Raises:
            MeasurementError: the library is not installed; the message says how to install it.
        """
        ...

    def facts(self) -> Mapping[str, str | int | float]:
        """Hardware properties beyond `cluster.hardware.facts`, e.g. driver, clocks, phone model.

        Empty if there are none.
        """
        ...

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        """Compile `module` in evaluation mode for inputs shaped like `example`.

        The module is not changed. BatchNorm is folded into convolutions, here or when the program
        is loaded.
        """
        ...

    def load(self, program: bytes) -> LoadedProgram:
        """Load a program that `compile` returned, ready to run on the target.

        Raises:
            MeasurementError: `program` is not a program of this runtime.
        """
        ...

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        """Run a prepared call `times` times; return the total milliseconds by the target's clock.

        Runtimes on a CPU of this machine use `timing.host_ms`.
        """
        ...

    def rest(self) -> None:
        """Pause between two rounds of samples, e.g. to let a phone cool down."""
        ...
