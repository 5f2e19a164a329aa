"""Targets: the hardware that a network is specialized for; and the hardware of this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

TABLE = "table"
"""Used instead of a runtime: latencies come from a table, nothing is measured."""

BACKENDS = {
    "executorch": "XNNPACK",
    "onnxruntime": "ONNX Runtime",
    "torch": "torch",
    "torch_cuda": "torch CUDA graphs",
    TABLE: "published linear model, TensorFlow Lite, float",
}
"""Library that executes the operations under each runtime."""

PRECISIONS = {
    "executorch": ("fp32",),
    "onnxruntime": ("fp32",),
    "torch": ("fp32",),
    "torch_cuda": ("fp32", "fp16", "bf16"),
    TABLE: ("fp32",),
}
"""Number formats by runtime, the default first."""

DEVICES = {
    "executorch": ("cpu", "android"),
    "onnxruntime": ("cpu",),
    "torch": ("cpu",),
    "torch_cuda": ("cuda",),
    TABLE: ("cpu",),
}
"""Devices of each runtime, the default first."""

MACHINES = {"x86_64": "x86-64", "AMD64": "x86-64", "aarch64": "arm64"}
"""Names of the processor families that `platform.machine` reports."""

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
"""Environment of training processes. Without it, glibc returns large tensors to the system after
every step and allocates them again: a step of batch 128 on a CPU took 121 ms, with this 86.
"""


@dataclass(frozen=True, kw_only=True)
class Phone:
    """An Android phone, and how it is measured."""

    serial: str | None = None
    """Serial number, as `adb devices` prints it; needed if several phones are attached."""

    runner: str | None = None
    """Program on this machine that runs a `.pte` on the phone: ExecuTorch's `executor_runner`."""

    cores: Literal["big", "little", "any"] = "big"
    """Cores that the runner is pinned to."""

    cool_down_s: float = 2.0
    """Pause between two rounds of samples."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Hardware to specialize for, and how a network runs on it."""

    name: str
    """Name used in a job file under `cases: target`."""

    runtime: str
    """Runtime that compiles and times networks, see cluster/runtimes; or `table`."""

    device: str = "cpu"
    """Device that the runtime uses: cpu, cuda or android."""

    batch_size: int = 1
    """Images per call; a latency is the time of one call."""

    threads: int = 1
    """Threads that one call may use."""

    precision: str = "fp32"
    """Number format of weights and activations."""

    resources: Mapping[str, float] = field(default_factory=dict)
    """Ray resources that the measuring node must have: `{"GPU": 1}`, or a custom resource."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Ray labels that the measuring node must have: `{"ray.io/accelerator-type": "H100"}`."""

    phone: Phone | None = None
    """Settings of the phone, if the device is android."""

    table: str = ""
    """File of latencies for runtime `table`; empty: those that ship with the project."""

    may_stand_in: bool = False
    """Whether this host may be measured if the target hardware is missing."""

    stand_in: bool = False
    """Whether this host is measured in place of the target hardware."""

    @property
    def is_measured(self) -> bool:
        """Whether networks are timed on the target; otherwise its table is all there is."""
        return self.runtime != TABLE

    def hardware(self) -> str:
        """Description of the measured hardware: `mobile on host x86-64 (XNNPACK)`."""
        host = f" on host {machine()}" if self.stand_in else ""
        if self.table:
            return f"{self.name} (table {Path(self.table).name})"
        number_format = "" if self.precision == "fp32" else f", {self.precision}"
        return f"{self.name}{host} ({BACKENDS[self.runtime]}{number_format})"

    def on_host(self) -> Target:
        """Copy of this target that measures this host in its place."""
        return replace(self, device="cpu", phone=None, stand_in=True)

    def key(self) -> dict[str, Any]:
        """Everything that latencies depend on; how a node is found does not belong to it."""
        values = asdict(self)
        for name in ("resources", "labels", "may_stand_in", "table"):
            del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Target:
        """Inverse of `dataclasses.asdict`."""
        phone = values["phone"]
        return cls(**{**values, "phone": None if phone is None else Phone(**phone)})


TARGETS: dict[str, Target] = {
    "cpu": Target(name="cpu", runtime="onnxruntime"),
    "gpu": Target(
        name="gpu", runtime="torch_cuda", device="cuda", batch_size=8, resources={"GPU": 1}
    ),
    "mobile": Target(name="mobile", runtime="executorch", device="android", phone=Phone()),
    "pixel1": Target(name="pixel1", runtime=TABLE),
}
"""Built-in targets, by the name used in job files; a job may change them and add its own."""


def machine() -> str:
    """Processor family of this machine: `x86-64`, `arm64`."""
    return MACHINES.get(platform.machine(), platform.machine())


def facts() -> dict[str, str | int | float]:
    """Properties of this machine. `cores` counts those that this process may use."""
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
