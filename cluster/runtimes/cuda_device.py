"""The GPU of this process: CUDA streams, graphs and events, and properties from `nvidia-smi`.

All code that needs a GPU is in this file, so that code built on it can be tested without one.
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
"""Untyped, since torch annotates only some of their functions."""

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
"""Fields to query, by name of the fact; the field `uuid` is queried before them."""


class Event(Protocol):
    """A point in time on the device, see `torch.cuda.Event`."""

    def record(self) -> None:
        """Record the time at which the device has finished all work submitted so far."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has reached the event."""
        ...

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from this event to `end`, both of which must have been reached."""
        ...


class Device(Protocol):
    """Operations of a GPU that a measurement uses."""

    torch_name: str
    """Name of the device for torch: `cuda`."""

    def facts(self) -> Facts:
        """Properties and current state of the device."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """Context that runs on a side stream, as CUDA requires for warm-ups before a capture."""
        ...

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        """Capture the device work of `run` as a call that repeats it.

        The call returns the object that `run` returned, with values computed anew.
        """
        ...

    def event(self) -> Event:
        """Create an event with timing enabled."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has finished all submitted work."""
        ...


def why_no_gpu() -> str | None:
    """Reason why torch cannot use a GPU; None if it can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if cuda.is_available():
        return None
    try:
        cuda.init()
    except RuntimeError as error:
        return str(error).partition(". ")[0].strip()  # cuts off torch's advice and a link
    return "torch.cuda.is_available() is false"


class CudaDevice:
    """The current CUDA device of torch."""

    torch_name = "cuda"

    def facts(self) -> Facts:
        """Properties from torch and the current state from `nvidia-smi`."""
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
        """Side stream that waits for the current one; on exit, the current one waits for it."""
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            yield
        cuda.current_stream().wait_stream(side)

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        """Capture a CUDA graph with its own memory pool."""
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            output = run()

        # The graph holds addresses only: `run`, and the memory it reads, must stay alive.
        def replay(_alive: object = run) -> object:
            graph.replay()
            return output

        return replay

    def event(self) -> Event:
        """Create a CUDA event that records the GPU's own clock."""
        event: Event = cuda.Event(enable_timing=True)
        return event

    def synchronize(self) -> None:
        """Wait for all streams."""
        cuda.synchronize()


def smi_facts(uuid: str) -> Facts:
    """Driver, clocks, power limit, modes and temperature of the GPU with this UUID.

    An index would not do: `nvidia-smi` lists all GPUs of the machine, including those that
    CUDA_VISIBLE_DEVICES hides from torch. Values that a GPU does not report are left out; if there
    are none at all, `nvidia_smi` gives the reason.
    """
    fields = ",".join(field for field, _ in SMI_FIELDS.values())
    command = ["nvidia-smi", f"--query-gpu=uuid,{fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        return {"nvidia_smi": "not found"}
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"nvidia_smi": str(error)}
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        return {"nvidia_smi": f"exit status {done.returncode}: {' '.join(lines[:1])}"}
    return read_smi(done.stdout, uuid)


def read_smi(text: str, uuid: str) -> Facts:
    """Parse the output of `nvidia-smi`, one GPU per line."""
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if row and row[0] == uuid:
            values = zip(SMI_FIELDS.items(), row[1:], strict=True)
            return {
                name: kind(value)
                for (name, (_, kind)), value in values
                if not value.startswith("[") and value != "N/A"  # [N/A], [Not Supported]
            }
    return {"nvidia_smi": f"lists no {uuid}"}
