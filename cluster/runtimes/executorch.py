"""ExecuTorch with XNNPACK: what runs a network on a phone's CPU, and on this host's.

A module is exported, lowered to XNNPACK and serialized to a `.pte`, the file that goes on the
phone. Lowering a block takes about a second, importing the compiler four more and a gigabyte of
memory; running a program needs neither.

The number of threads is that of one pool for the whole process, used by every program in it at the
moment it runs. `load` sets the pool, so programs of one process agree on a number.
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
"""What the library writes to standard error although all is well."""


class ExecuTorch:
    """Programs for XNNPACK through ExecuTorch."""

    name = "executorch"
    file_name = "model.pte"

    def __init__(self, target: Target) -> None:
        self._threads = target.threads

    def version(self) -> str:
        return installed("executorch")

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        """A `.pte` of a copy of `module` in evaluation mode, for inputs shaped like `example`.

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
        """Nothing that the machine does not know itself."""
        return {}

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        """By this machine's clock."""
        return host_ms(call, times)

    def rest(self) -> None:
        """Nothing."""

    def load(self, program: bytes) -> ExecuTorchProgram:
        """The program, with the process's thread pool set to the threads of the target.

        Raises:
            MeasurementError: `program` is no `.pte` that this version runs, or the library is not
                installed.
        """
        version = installed("executorch")
        with _quiet():
            import torch  # noqa: F401  # the library finds its symbols in those of torch

            # `executorch.runtime` is this library behind an import of the compiler: 3 s, 0.2 GB.
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
    """A loaded `.pte`. Not for use from several threads at once."""

    def __init__(self, program: Any, data: bytes) -> None:
        # The method uses memory of the program and of its bytes, without holding either: all three
        # live and go together, in this order. Otherwise the process dies.
        self._method = program.load_method("forward")
        self._program = program
        self._data = data

    def __call__(self, images: Tensor) -> Tensor:
        answer: Tensor = self._method.call([images.contiguous()])[0]
        return answer

    def prepared(self, images: Tensor) -> Callable[[], object]:
        """Computes the answer to `images`, leaving input and output where they are.

        The input is handed over here, once: a call through Python spends microseconds on it that
        a phone does not. A later call of the program, or of `prepared`, replaces it.
        """
        images = images.contiguous()
        self._method.set_inputs([images])
        execute = self._method.execute

        def call(_alive: object = (self, images)) -> None:
            execute()

        return call


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back the known noise of the library; whatever else it says comes through."""
    registry = logging.getLogger("torch.utils._pytree")
    registry.addFilter(_is_news)
    try:
        with warnings.catch_warnings(), _filtered_stderr():
            warnings.filterwarnings(
                "ignore", r"(read_text|open_text|read_binary|open_binary) is deprecated"
            )
            warnings.filterwarnings("ignore", "This API is experimental")
            yield
    finally:
        registry.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "on Enum subclasses is deprecated" not in record.getMessage()


@contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Drops lines of `NOISE` from standard error, where the C++ library writes through Python."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    finally:
        sys.stderr.write(NOISE.sub("", said.getvalue()))
