"""torch on this machine's processor: what runs a network that is served by torch itself.

A module is exported, its BatchNorms are folded into convolutions, and the graph that remains is
kept as a `torch.export` program. It runs operation by operation, in channels_last order: with one
image and one thread on x86-64, blocks took a tenth to a quarter less time in it.

The number of threads is that of torch in the whole process. `load` sets it, so programs of one
process agree on a number.
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
    """Programs for torch's CPU kernels, one after the other."""

    name = "torch"
    file_name = "model.torch.pt2"

    def __init__(self, target: Target) -> None:
        self._threads = target.threads

    def version(self) -> str:
        return installed("torch")

    def facts(self) -> dict[str, str | int | float]:
        """The instructions that kernels are chosen for, and the order of what they read."""
        import torch

        return {"instructions": torch.backends.cpu.get_cpu_capability(), "layout": "channels_last"}

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        """See `exported.export`."""
        from cluster.runtimes.exported import export

        return export(module, example)

    def load(self, program: bytes) -> TorchProgram:
        """The program, with the process's threads set to those of the target.

        Raises:
            MeasurementError: `program` is no `.pt2` that this torch reads, or it could run foreign
                code.
        """
        import torch

        from cluster.runtimes.exported import read

        loaded = TorchProgram(read(program))
        torch.set_num_threads(self._threads)
        return loaded

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        """By this machine's clock."""
        return host_ms(call, times)

    def rest(self) -> None:
        """Nothing."""


class TorchProgram:
    """A loaded program; its answers are inference tensors."""

    def __init__(self, program: ExportedProgram) -> None:
        values = {**program.state_dict, **program.constants}
        signature = program.graph_signature
        weights = [
            _channels_last(values[spec.target])
            for spec in signature.input_specs
            if spec.target is not None  # the images, which come last
        ]
        # Not `program.module()`, which checks and unpacks its arguments: 50 us a call.
        self._forward: Callable[[Tensor], tuple[Tensor]] = partial(
            program.graph_module.forward, *weights
        )

    def __call__(self, images: Tensor) -> Tensor:
        return self.prepared(images)()

    def prepared(self, images: Tensor) -> Callable[[], Tensor]:
        """Computes the answer to `images`, which are put in order here."""
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
