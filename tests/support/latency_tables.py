"""Latency tables with given numbers, for tests that measure nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nas_core.architecture import Architecture
from nas_core.latency import LatencyEntry, LatencyTable, OpSignature, op_signatures
from nas_core.space import SearchSpace


def table_of(space: SearchSpace, cost_ms: Callable[[OpSignature], float]) -> LatencyTable:
    """A table in which the latency of every part is `cost_ms(part)`."""

    def row(part: OpSignature) -> LatencyEntry:
        ms = cost_ms(part)
        return LatencyEntry(part=part, median_ms=ms, p10_ms=ms, p90_ms=ms, spread=0.0, count=15)

    table = LatencyTable(
        target="mobile",
        hardware="mobile on host x86-64 (XNNPACK)",
        runtime="executorch",
        runtime_version="1.5.1",
        space=space,
        rows=tuple(row(part) for part in op_signatures(space)),
    )
    reference_ms = table.latency_ms(Architecture.reference(space))
    return replace(table, reference_ms=reference_ms)


def by_kernel(part: OpSignature) -> float:
    """Kernel size in hundredths of a millisecond; one hundredth for all other parts."""
    return {"mbconv_k3": 0.03, "mbconv_k5": 0.05, "mbconv_k7": 0.07}.get(part.op[:9], 0.01)


def rows_of(space: SearchSpace) -> list[dict[str, Any]]:
    """Parts of a space with these latencies, as rows of a user's latency file."""
    return [
        {
            "op": part.op,
            "in_channels": part.in_channels,
            "out_channels": part.out_channels,
            "stride": part.stride,
            "resolution": part.resolution,
            "ms": by_kernel(part),
        }
        for part in op_signatures(space)
    ]
