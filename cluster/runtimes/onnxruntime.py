"""ONNX Runtime on this machine's processor, as used for inference on server CPUs.

A module is exported to ONNX with BatchNorm folded into its convolutions. The session that loads it
fuses activations and packs weights for the instruction set of the machine.

From version 1.29 the library sends telemetry about what it loads and runs, from a thread that
starts with the import. Telemetry is disabled wherever the library is imported: searches are
private, and an additional thread disturbs measurements.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cluster.runtimes.base import MeasurementError
from cluster.runtimes.folding import folded
from cluster.runtimes.libraries import installed
from cluster.runtimes.timing import host_ms

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cluster.hardware import Target

PROVIDER = "CPUExecutionProvider"
IMAGES, ANSWER = "images", "answer"
"""Names of the input and the output of a program."""

SESSION_CONFIG = {
    # Programs are timed in turns, each with its own threads. Spinning threads keep the cores from
    # the program being timed: with two threads on two cores, medians of four blocks came
    # out up to 8 times too long and differed from round to round by as much; without, by a tenth.
    # One thread, which is the caller's, never spins.
    "session.intra_op.allow_spinning": "0",
}


class OnnxRuntime:
    """Programs that use ONNX Runtime's own CPU kernels."""

    name = "onnxruntime"
    file_name = "model.onnx"

    def __init__(self, target: Target) -> None:
        self._threads = target.threads

    def version(self) -> str:
        return installed("onnxruntime")

    def facts(self) -> dict[str, str | int | float]:
        """The execution provider, which is the library's backend."""
        return {"provider": PROVIDER}

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        """ONNX program of a copy of `module` in evaluation mode, for inputs shaped like `example`.

        Raises:
            MeasurementError: a library needed for the export is not installed.
        """
        for name in ("onnx", "onnxscript"):
            installed(name)
        import torch

        with torch.no_grad():
            exported = torch.onnx.export(
                folded(module),
                (example.cpu().contiguous(),),
                input_names=[IMAGES],
                output_names=[ANSWER],
                dynamo=True,
                optimize=True,
                verbose=False,  # otherwise it prints its steps
            )
        assert exported is not None, "without a file name, the exporter returns the program"
        program: bytes = exported.model_proto.SerializeToString()
        return program

    def load(self, program: bytes) -> OnnxProgram:
        """Load a program with the threads of the target, one of which is the caller's.

        Raises:
            MeasurementError: this version cannot run the program.
        """
        library = _library()
        options = library.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
        for key, value in SESSION_CONFIG.items():
            options.add_session_config_entry(key, value)
        try:
            session = library.InferenceSession(program, options, providers=[PROVIDER])
        except Exception as error:  # its exceptions have no common base class
            raise MeasurementError(
                f"ONNX Runtime {self.version()} cannot load the program ({error}); compile it again"
            ) from error
        return OnnxProgram(session)

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        """Milliseconds by this machine's clock."""
        return host_ms(call, times)

    def rest(self) -> None:
        """Do nothing."""


class OnnxProgram:
    """A loaded ONNX program."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __call__(self, images: Tensor) -> Tensor:
        import torch

        (answer,) = self._session.run([ANSWER], {IMAGES: images.detach().contiguous().numpy()})
        return torch.from_numpy(answer)

    def prepared(self, images: Tensor) -> Callable[[], Tensor]:
        """Return a call that computes the output for `images`, always into the same tensor.

        Input and output are bound to their memory here, once: passing them through `__call__`
        takes microseconds longer than running an empty program.
        """
        import numpy as np
        import torch

        images = images.detach().contiguous()
        answer = torch.empty(self._session.get_outputs()[0].shape)
        binding = self._session.io_binding()
        location = ("cpu", 0, np.float32)
        binding.bind_input(IMAGES, *location, list(images.shape), images.data_ptr())
        binding.bind_output(ANSWER, *location, list(answer.shape), answer.data_ptr())
        run = self._session.run_with_iobinding

        # The binding holds addresses only: the tensors must live as long as the call.
        def call(_alive: object = images) -> Tensor:
            run(binding)
            return answer

        return call


def _library() -> Any:
    installed("onnxruntime")
    # Read once, at the import. The library's own function would be too late: the thread runs.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return importlib.import_module("onnxruntime")
