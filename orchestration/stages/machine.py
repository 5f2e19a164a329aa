"""What a machine is at while it trains: the figures that MLflow shows as system metrics."""

from __future__ import annotations

from typing import Any

import psutil

MEGABYTE = 1e6


class Machine:
    """The machine that this process runs on. Names are those that MLflow itself gives them."""

    def __init__(self) -> None:
        """Begin to watch it."""
        self._network: Any = psutil.net_io_counters()
        psutil.cpu_percent()  # what it says next is of the time since this call

    def use(self) -> dict[str, float]:
        """Load since the last call, in percent; memory now, and what was sent and received since,
        in megabytes. GPUs are those that this process may use."""
        memory = psutil.virtual_memory()
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            **self._traffic(),
            **_gpus(),
        }

    def _traffic(self) -> dict[str, float]:
        """Nothing where there are no interfaces."""
        before = self._network
        self._network = now = psutil.net_io_counters()
        if before is None or now is None:
            return {}
        return {
            "network_receive_megabytes": (now.bytes_recv - before.bytes_recv) / MEGABYTE,
            "network_transmit_megabytes": (now.bytes_sent - before.bytes_sent) / MEGABYTE,
        }


def _gpus() -> dict[str, float]:
    import torch

    found: dict[str, float] = {}
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found[f"gpu_{number}_memory_usage_megabytes"] = (total - free) / MEGABYTE
        found[f"gpu_{number}_memory_usage_percentage"] = 100 * (1 - free / total)
        found |= _gpu_load(torch, number)
    return found


def _gpu_load(torch: Any, number: int) -> dict[str, float]:
    """Nothing where the library that tells it (NVML) is not installed or does not."""
    try:
        return {f"gpu_{number}_utilization_percentage": float(torch.cuda.utilization(number))}
    except Exception:  # it has errors of its own, and no epoch ends for a figure
        return {}
