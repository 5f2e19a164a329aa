"""ExecuTorch with XNNPACK, as used for inference on the CPUs of phones; here on this host's.

A module is exported, lowered to XNNPACK and serialized to a `.pte` file, as deployed on phones.
Lowering a block takes about a second; importing the compiler takes four more, and a gigabyte of
memory. Running a program needs neither.

All programs of a process share one thread pool. `load` sets its size, so all programs of a process
must use the same number of threads.
"""

from __future__ import annotations

import importlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

from cluster.runtimes.base import MeasurementError
from cluster.runtimes.composite_ops import cache_composite_ops
from cluster.runtimes.folding import folded
from cluster.runtimes.libraries import installed
from cluster.runtimes.timing import host_ms

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cluster.hardware import Target

NOISE = re.compile(r"\[(cpuinfo_utils|threadpool)\.cpp:\d+\].*\n")
"""Messages that the library writes to standard error although nothing is wrong."""


class ExecuTorch:
    """XNNPACK programs, compiled and run by ExecuTorch."""

    name = "executorch"
    file_name = "model.pte"

    def __init__(self, target: Target) -> None:
        self._threads = target.threads

    def version(self) -> str:
        return installed("executorch")

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        """A `.pte` program of a copy of `module` in evaluation mode, for inputs like `example`.

        Raises:
            MeasurementError: the library is not installed.
        """
        installed("executorch")
        import torch

        module = folded(module)
        with _quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            cache_composite_ops()
            with torch.no_grad():
                exported = torch.export.export(module, (example.cpu().contiguous(),))
            lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            return bytes(lowered.to_executorch().buffer)

    def facts(self) -> dict[str, str | int | float]:
        """Return no properties beyond those of the machine."""
        return {}

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        """Milliseconds by this machine's clock."""
        return host_ms(call, times)

    def rest(self) -> None:
        """Do nothing."""

    def load(self, program: bytes) -> ExecuTorchProgram:
        """Load a program and set the thread pool of the process to the threads of the target.

        Raises:
            MeasurementError: this version cannot run the program, or the library is not
                installed.
        """
        version = installed("executorch")
        with _quiet():
            import torch  # noqa: F401  # the library needs symbols of torch

            # `executorch.runtime` is the same library, but imports the compiler: 3 s, 0.2 GB.
            library = importlib.import_module("executorch.extension.pybindings._C")
            if library._threadpool_get_thread_count() != self._threads:
                library._unsafe_reset_threadpool(self._threads)
            try:
                return ExecuTorchProgram(library._load_program_from_buffer(program), program)
            except RuntimeError as error:
                raise MeasurementError(
                    f"ExecuTorch {version} cannot load the program ({error}); compile it again"
                ) from error


class ExecuTorchProgram:
    """A loaded `.pte` program. Not thread-safe."""

    def __init__(self, program: Any, data: bytes) -> None:
        # The method uses memory of the program and of its bytes without owning either. All three
        # must be released together, in this order; otherwise the process crashes.
        self._method = program.load_method("forward")
        self._program = program
        self._data = data

    def __call__(self, images: Tensor) -> Tensor:
        output: Tensor = self._method.call([images.contiguous()])[0]
        return output

    def prepared(self, images: Tensor) -> Callable[[], object]:
        """Return a call that computes the output for `images`, without copying input or output.

        The input is set here, once: per call, Python would spend microseconds on it that a phone
        does not. A later call of the program, or of `prepared`, replaces it.
        """
        images = images.contiguous()
        self._method.set_inputs([images])
        execute = self._method.execute

        def call(_alive: object = (self, images)) -> None:
            execute()

        return call


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the known harmless messages of the library, and nothing else."""
    registry = logging.getLogger("torch.utils._pytree")
    registry.addFilter(_is_relevant)
    try:
        with warnings.catch_warnings(), _filtered_stderr():
            warnings.filterwarnings(
                "ignore", r"(read_text|open_text|read_binary|open_binary) is deprecated"
            )
            warnings.filterwarnings("ignore", "This API is experimental")
            yield
    finally:
        registry.removeFilter(_is_relevant)


def _is_relevant(record: logging.LogRecord) -> bool:
    return "on Enum subclasses is deprecated" not in record.getMessage()


@contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Remove lines of `NOISE` from standard error, which the C++ library writes through Python."""
    captured = io.StringIO()
    try:
        with redirect_stderr(captured):
            yield
    finally:
        sys.stderr.write(NOISE.sub("", captured.getvalue()))
