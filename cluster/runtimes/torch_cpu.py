"""torch on this machine's processor, for networks that torch itself serves.

A module is exported, its BatchNorms are folded into convolutions, and the resulting graph is stored
as a `torch.export` program. It runs operation by operation in channels_last format, which took a
tenth to a quarter less time for blocks (one image, one thread, x86-64).

The number of threads is a setting of torch for the whole process. `load` sets it, so all programs
of a process must use the same number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cluster.runtimes.libraries import installed
from cluster.runtimes.timing import host_ms

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from cluster.hardware import Target


class TorchCpu:
    """Programs that use torch's CPU kernels, one operation at a time."""

    name = "torch"
    file_name = "model.torch.pt2"

    def __init__(self, target: Target) -> None:
        self._threads = target.threads

    def version(self) -> str:
        return installed("torch")

    def facts(self) -> dict[str, str | int | float]:
        """CPU instruction set that torch uses, and the memory format."""
        import torch

        return {"instructions": torch.backends.cpu.get_cpu_capability(), "layout": "channels_last"}

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        """Compile by `exported.export`."""
        from cluster.runtimes.exported import export

        return export(module, example)

    def load(self, program: bytes) -> TorchProgram:
        """Load a program and set the threads of the process to those of the target.

        Raises:
            MeasurementError: this torch cannot read the program, or it could execute foreign
                code.
        """
        import torch

        from cluster.runtimes.exported import read

        loaded = TorchProgram(read(program))
        torch.set_num_threads(self._threads)
        return loaded

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        """Milliseconds by this machine's clock."""
        return host_ms(call, times)

    def rest(self) -> None:
        """Do nothing."""


class TorchProgram:
    """A loaded program; its outputs are inference tensors."""

    def __init__(self, program: ExportedProgram) -> None:
        values = {**program.state_dict, **program.constants}
        signature = program.graph_signature
        weights = [
            _channels_last(values[spec.target])
            for spec in signature.input_specs
            if spec.target is not None  # the images, which come last
        ]
        # Not `program.module()`, which checks and unpacks its arguments: 50 us per call.
        self._forward: Callable[[Tensor], tuple[Tensor]] = partial(
            program.graph_module.forward, *weights
        )

    def __call__(self, images: Tensor) -> Tensor:
        return self.prepared(images)()

    def prepared(self, images: Tensor) -> Callable[[], Tensor]:
        """Return a call that computes the output for `images`, which are laid out here."""
        import torch

        images = _channels_last(images)
        forward = self._forward

        def call() -> Tensor:
            with torch.inference_mode():
                return forward(images)[0]

        return call


def _channels_last(value: Tensor) -> Tensor:
    import torch

    order = torch.channels_last if value.dim() == 4 else torch.contiguous_format
    return value.detach().contiguous(memory_format=order)
