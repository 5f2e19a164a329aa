"""The GPU of this process: streams, graphs and events of CUDA, and what `nvidia-smi` knows of it.

All that needs a GPU is in here, so that what is built on it can be tested without one.
"""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch

cuda: Any = torch.cuda
backends: Any = torch.backends
"""Without the types that torch has for a few of their functions only."""

Facts = dict[str, str | int | float]

SMI_TIMEOUT_S = 20.0
SMI_FIELDS: dict[str, tuple[str, type[str] | type[int] | type[float]]] = {
    "driver": ("driver_version", str),
    "sm_clock_mhz": ("clocks.current.sm", int),
    "sm_clock_max_mhz": ("clocks.max.sm", int),
    "memory_clock_mhz": ("clocks.current.memory", int),
    "memory_clock_max_mhz": ("clocks.max.memory", int),
    "power_limit_w": ("power.limit", float),
    "persistence_mode": ("persistence_mode", str),
    "ecc": ("ecc.mode.current", str),
    "temperature_c": ("temperature.gpu", int),
}
"""What is asked, by the name of the fact; the field `uuid` is asked before them."""


class Event(Protocol):
    """A moment on the device, see `torch.cuda.Event`."""

    def record(self) -> None:
        """Take the moment when the device has done what it was given so far."""
        ...

    def synchronize(self) -> None:
        """Wait until that moment has come."""
        ...

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from this moment to that of `end`, which must have come."""
        ...


class Device(Protocol):
    """What a measurement needs of a GPU."""

    place: str
    """Where tensors go, in torch's words: `cuda`."""

    def facts(self) -> Facts:
        """What the device is, and the state that it is in."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """What runs within goes to a stream of its own, as CUDA wants it before a capture."""
        ...

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        """What `run` gives the device to do, as one call that does it again.

        The call returns what `run` returned, whose values are computed anew.
        """
        ...

    def event(self) -> Event:
        """A new event, which can tell times."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        ...


def why_no_gpu() -> str | None:
    """What keeps torch from a GPU; None where there is one."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if cuda.is_available():
        return None
    try:
        cuda.init()
    except RuntimeError as error:
        return str(error).partition(". ")[0].strip()  # what follows is advice and an address
    return "torch.cuda.is_available() is false"


class CudaDevice:
    """The current CUDA device of torch."""

    place = "cuda"

    def facts(self) -> Facts:
        """Properties that torch knows, and the state that `nvidia-smi` tells."""
        properties: Any = cuda.get_device_properties(cuda.current_device())
        return {
            "gpu": properties.name,
            "gpu_memory_gb": round(properties.total_memory / 1e9, 1),
            "multiprocessors": properties.multi_processor_count,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cudnn": backends.cudnn.version() or "none",
            **smi_facts(f"GPU-{properties.uuid}"),
        }

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A stream that waits for the current one and that the current one waits for."""
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            yield
        cuda.current_stream().wait_stream(side)

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        """A CUDA graph with memory of its own."""
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            answer = run()

        # The graph knows the memory that `run` reads by its addresses: `run` lives as long.
        def replay(_alive: object = run) -> object:
            graph.replay()
            return answer

        return replay

    def event(self) -> Event:
        """An event of CUDA, which the GPU stamps with its own clock."""
        event: Event = cuda.Event(enable_timing=True)
        return event

    def synchronize(self) -> None:
        """Of all streams."""
        cuda.synchronize()


def smi_facts(uuid: str) -> Facts:
    """Driver, clocks, power limit, modes and temperature of the GPU with this UUID.

    The UUID, not a number: `nvidia-smi` lists all GPUs of the machine, also those that
    CUDA_VISIBLE_DEVICES hides from torch. What a GPU does not tell is left out; where nothing was
    told, `nvidia_smi` says why.
    """
    fields = ",".join(field for field, _ in SMI_FIELDS.values())
    words = ["nvidia-smi", f"--query-gpu=uuid,{fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        return {"nvidia_smi": "not found"}
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"nvidia_smi": str(error)}
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        return {"nvidia_smi": f"exit status {done.returncode}: {' '.join(said[:1])}"}
    return read_smi(done.stdout, uuid)


def read_smi(text: str, uuid: str) -> Facts:
    """Facts from what `nvidia-smi` printed, one GPU a line."""
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if row and row[0] == uuid:
            told = zip(SMI_FIELDS.items(), row[1:], strict=True)
            return {
                name: kind(value)
                for (name, (_, kind)), value in told
                if not value.startswith("[") and value != "N/A"  # [N/A], [Not Supported]
            }
    return {"nvidia_smi": f"lists no {uuid}"}
