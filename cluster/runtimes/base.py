"""Protocol of a runtime, and its errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cluster.hardware import Target


class MeasurementError(Exception):
    """A latency could not be measured."""


class ProgramError(MeasurementError):
    """A runtime cannot compile or run a program: it rejects it, crashes, or kills its process.

    Other programs may still work, so the measurement continues without this one.
    """


class LoadedProgram(Protocol):
    """A compiled module, ready to run."""

    def __call__(self, images: Tensor) -> Tensor:
        """Output for `images`, which must have the shape of the example used to compile."""
        ...

    def prepared(self, images: Tensor) -> Callable[[], object]:
        """Return the call to be timed, which only computes the output for `images`."""
        ...


class Runtime(Protocol):
    """Compiles modules for one target, loads programs, and times them by the target's clock."""

    name: str

    file_name: str
    """File name of a stored program: `model.onnx`."""

    def __init__(self, target: Target) -> None: ...

    def version(self) -> str:
        """Version of the library that compiles and runs; latencies are valid for one version.

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
        """Load a program that `compile` made, ready to run on the target.

        Raises:
            MeasurementError: it is not such a program.
        """
        ...

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        """Milliseconds of `times` successive executions of a prepared call, by the target's clock.

        See `timing.host_ms` for everything that runs on this machine's processor.
        """
        ...

    def rest(self) -> None:
        """Pause between two rounds of samples, e.g. to let a phone cool down."""
        ...
