"""Latency tables of a GPU, from compilation to JSON lines; used by `gpu.py`, without Ray.

Lists of timings are ordered: ops of the space, the empty call, whole networks. The reference is the
first network.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import torch
from torch import nn

from cluster.hardware import TARGETS, facts
from cluster.runtimes.timing import Timing
from cluster.runtimes.torch_cuda import TorchCuda
from nas_core.architecture import Architecture, Model
from nas_core.calibration import Calibration, Errors, MeasuredNetwork, affine_fit
from nas_core.latency import LatencyEntry, LatencyTable, OpSignature, op_signatures
from nas_core.network import Head, Stem
from nas_core.ops import build_op
from nas_core.ranking import ranking_paths
from nas_core.shapes import OpShape
from nas_core.space import SearchSpace
from tests.benchmarks.lines import line

Subject = OpSignature | Model | None
"""Input of the compiler: one op with its shape, a whole network, or None for an empty call."""
Program = tuple[bytes, tuple[int, ...]]
"""Compiled program and the shape of its input."""
Line = dict[str, object]


def networks_of(space: SearchSpace, count: int) -> list[Architecture]:
    """Reference network, followed by random ones."""
    drawn = [Architecture.from_path(space, list(p)) for p in ranking_paths(space, count, seed=0)]
    reference = Architecture.reference(space)
    return [reference, *(item for item in drawn if item != reference)][:count]


def built(space: SearchSpace, subject: Subject) -> tuple[nn.Module, tuple[int, int, int]]:
    """Module and shape of its input for one image, as in `compile_workers.py`."""
    if subject is None:
        return nn.ReLU(), (1, 1, 1)
    if not isinstance(subject, OpSignature):
        return subject.build(), (space.in_channels, space.resolution, space.resolution)
    size = (subject.in_channels, subject.resolution, subject.resolution)
    if subject.op in ("stem", "head"):
        return Stem(space) if subject.op == "stem" else Head(space), size
    shape = OpShape(subject.in_channels, subject.out_channels, subject.stride, space.bn_eps)
    return build_op(subject.op, shape), size


def compiled(space: SearchSpace, batch: int, subject: Subject) -> Program:
    """Compiled program; the same one serves all precisions."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module, size = built(space, subject)
    shape = (batch, *size)
    return TorchCuda(TARGETS["gpu"]).compile(module, torch.zeros(shape)), shape


def all_compiled(
    space: SearchSpace, batch: int, subjects: Sequence[Subject], processes: int
) -> list[Program]:
    """Programs in the order of the subjects."""
    work = partial(compiled, space, batch)
    if processes == 1:
        return [work(subject) for subject in subjects]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        return list(pool.map(work, subjects))


def table_of(
    runtime: TorchCuda,
    precision: str,
    space: SearchSpace,
    networks: Sequence[Architecture],
    timings: Sequence[Timing],
    fitted: int,
) -> LatencyTable:
    """Latency table with a line fitted to the first `fitted` networks, tested on the others."""
    parts, target = op_signatures(space), replace(TARGETS["gpu"], precision=precision)
    empty_ms = timings[len(parts)].median_ms
    times = [timing.without(empty_ms) for timing in timings]
    table = LatencyTable(
        target=target.name,
        hardware=target.hardware(),
        runtime=runtime.name,
        runtime_version=runtime.version(),
        space=space,
        rows=tuple(row(part, item) for part, item in zip(parts, times, strict=False)),
        overhead_ms=empty_ms,
        device={**facts(), **runtime.facts()},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    whole = [
        measured(table, item, timing)
        for item, timing in zip(networks, times[len(parts) + 1 :], strict=True)
    ]
    return with_line(table, whole[:fitted], whole[fitted:])


def measured(table: LatencyTable, network: Architecture, timing: Timing) -> MeasuredNetwork:
    return MeasuredNetwork(
        name="reference" if network == Architecture.reference(table.space) else "random",
        ops=network.ops,
        parts_ms=table.parts_ms(network),
        measured_ms=timing.median_ms,
        spread=timing.spread,
    )


def row(part: OpSignature, timing: Timing) -> LatencyEntry:
    return LatencyEntry(
        part=part,
        median_ms=timing.median_ms,
        p10_ms=timing.p10_ms,
        p90_ms=timing.p90_ms,
        spread=timing.spread,
        count=timing.count,
    )


def with_line(
    table: LatencyTable, fitted: Sequence[MeasuredNetwork], checked: Sequence[MeasuredNetwork]
) -> LatencyTable:
    parts, measured = sums(fitted), [item.measured_ms for item in fitted]
    scale, offset_ms = affine_fit(parts, measured, table.parts_ms(table.fastest()))
    predicted = [scale * item + offset_ms for item in sums(checked)]
    errors = Errors.of(predicted, [item.measured_ms for item in checked])
    return replace(
        table,
        reference_ms=fitted[0].measured_ms,
        reference_spread=fitted[0].spread,
        scale=scale,
        offset_ms=offset_ms,
        calibration=Calibration(fitted=tuple(fitted), checked=tuple(checked), errors=errors),
    )


def sums(networks: Sequence[MeasuredNetwork]) -> list[float]:
    return [network.parts_ms for network in networks if network.parts_ms is not None]


def table_lines(table: LatencyTable) -> Iterator[Line]:
    """Result lines of every op, every network and the errors of the table, microseconds."""
    known = table.calibration
    assert known is not None, "the table was fitted"
    yield from (part_line(item) for item in table.rows)
    yield from (network_line("fitted", item) for item in known.fitted)
    yield from (network_line("checked", item) for item in known.checked)
    yield line("empty call, us", [table.overhead_ms * 1e3])
    yield line("spread of a part", [item.spread for item in table.rows])
    yield line("spread of a network", [item.spread for item in known.checked])
    yield line("network / sum of its parts", ratios(known.checked))
    yield line("line through networks: scale", [table.scale])
    yield line("line through networks: offset, us", [table.offset_ms * 1e3])
    if known.errors is not None:
        yield from error_lines(known.errors)


def part_line(item: LatencyEntry) -> Line:
    part = item.part
    shape = f"{part.in_channels}->{part.out_channels} /{part.stride} at {part.resolution} px"
    p10, p90 = round(item.p10_ms * 1e3, 3), round(item.p90_ms * 1e3, 3)
    middle = line(f"{part.op} {shape}, us", [item.median_ms * 1e3])
    return {**middle, "p10": p10, "p90": p90, "n": item.count, "spread": round(item.spread, 4)}


def network_line(kind: str, item: MeasuredNetwork) -> Line:
    parts_us = round((item.parts_ms or 0.0) * 1e3, 3)
    middle = line(f"network, {kind}, us", [item.measured_ms * 1e3])
    return {**middle, "parts_us": parts_us, "spread": round(item.spread, 4), "ops": item.ops}


def error_lines(errors: Errors) -> Iterator[Line]:
    yield line("checked networks: MAPE, %", [errors.mape * 100])
    yield line("checked networks: RMSE, us", [errors.rmse_ms * 1e3])
    yield line("checked networks within 5 %, %", [errors.within_5 * 100])
    yield line("checked networks within 10 %, %", [errors.within_10 * 100])
    yield line("checked networks: Spearman", [errors.spearman])


def ratios(networks: Sequence[MeasuredNetwork]) -> list[float]:
    return [network.measured_ms / network.parts_ms for network in networks if network.parts_ms]
