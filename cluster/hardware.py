"""Targets: the hardware that a network is specialized for, and what this machine is."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

TABLE = "table"
"""In place of a runtime: the latencies of the target ship with the project, nothing is measured."""

BACKENDS = {"executorch": "XNNPACK", TABLE: "published linear model, TensorFlow Lite, float"}
"""What runs the operations under each runtime."""

MACHINES = {"x86_64": "x86-64", "AMD64": "x86-64", "aarch64": "arm64"}
"""Usual names of the processor families that `platform.machine` reports."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Hardware to specialize for, and how a network runs on it."""

    name: str
    """What a job file says under `cases: target`."""

    runtime: str
    """Compiles and times networks, see cluster/runtimes; or `table`."""

    device: str = "cpu"
    """Where the runtime runs: cpu."""

    batch_size: int = 1
    """Images per call; a latency is the time of one call."""

    threads: int = 1
    """Threads that one call may use."""

    precision: str = "fp32"
    """Number format of weights and activations."""

    stand_in: bool = False
    """Whether this host is measured in place of the hardware meant."""

    @property
    def is_measured(self) -> bool:
        """Whether networks are timed for it; else its table has the last word."""
        return self.runtime != TABLE

    def hardware(self) -> str:
        """What latencies are of, in words: `mobile on host x86-64 (XNNPACK)`."""
        place = f" on host {machine()}" if self.stand_in else ""
        return f"{self.name}{place} ({BACKENDS[self.runtime]})"


TARGETS: dict[str, Target] = {
    "mobile": Target(name="mobile", runtime="executorch", stand_in=True),
    "pixel1": Target(name="pixel1", runtime=TABLE),
}
"""Targets by the name that a job file uses."""


def machine() -> str:
    """Processor family of this machine: `x86-64`, `arm64`."""
    return MACHINES.get(platform.machine(), platform.machine())


def facts() -> dict[str, str | int | float]:
    """What this machine is. `cores` counts those that this process may use."""
    import psutil

    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "machine": machine(),
        "os": f"{platform.system()} {platform.release()}",
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or "unknown"


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
