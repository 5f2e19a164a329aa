"""Published figures that results are compared with, from the ProxylessNAS poster (ICLR 2019).

ImageNet, 224 pixels; latency on a Pixel 1 phone at batch 1, milliseconds. CPU seconds of other
implementations were measured with their code on two threads, batch 8, 224 pixels, space of 21
sites: the released reference implementation (mit-han-lab/proxylessnas), and NNI 3.0.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row of the first table of the poster."""

    title: str
    top1: float
    """Percent."""
    pixel1_ms: float
    gpu_hours: float | None
    """Cost of its search; None if there was no search."""
    model: str | None
    """Name of the network in this project; None if its architecture was not published."""


MOBILE_TABLE = (
    Published("MobileNetV1", 70.6, 113, None, "mobilenet_v1"),
    Published("MobileNetV2", 72.0, 75, None, "mobilenet_v2"),
    Published("NASNet-A", 74.0, 183, 48_000, "nasnet_a"),
    Published("AmoebaNet-A", 74.5, 190, 75_600, "amoebanet_a"),
    Published("MnasNet", 74.0, 76, 40_000, "mnasnet"),
    Published("MnasNet (their implementation)", 74.0, 79, 40_000, "mnasnet"),
    Published("Proxyless-G, without latency loss", 71.8, 83, 200, None),
    Published("Proxyless-G, with latency loss", 74.2, 79, 200, None),
    Published("Proxyless-R (Proxyless-Mobile)", 74.6, 78, 200, "proxyless_mobile"),
    Published("Proxyless-CPU", 75.3, 116, 200, "proxyless_cpu"),
    Published("Proxyless-GPU", 75.1, 124, 200, "proxyless_gpu"),
)
"""First table of the poster; the last two rows are from its table of specialized networks."""

SPECIALIZATION_MS = {
    "proxyless_gpu": {"gpu": 5.1, "cpu": 204.9, "mobile": 124.0},
    "proxyless_cpu": {"gpu": 7.4, "cpu": 138.7, "mobile": 116.0},
    "proxyless_mobile": {"gpu": 7.2, "cpu": 164.1, "mobile": 78.0},
}
"""Latencies on the hardware of the poster, by network and target."""

OTHERS_CPU_S = {
    "weight step": (1.25, 2.13),
    "two-path alpha step": (1.46, None),
    "full-path alpha step": (1.88, 2.10),
    "REINFORCE update of ten networks": (3.86, None),
}
"""CPU seconds of the reference implementation and of NNI 3.0; None if it has no such step."""
OTHERS_PEAK_GB = (1.9, 2.0)
