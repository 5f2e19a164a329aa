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
    return [reference, *(one for one in drawn if one != reference)][:count]


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
        rows=tuple(row(part, one) for part, one in zip(parts, times, strict=False)),
        overhead_ms=empty_ms,
        device={**facts(), **runtime.facts()},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    whole = [
        measured(table, one, timing)
        for one, timing in zip(networks, times[len(parts) + 1 :], strict=True)
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
    parts, measured = sums(fitted), [one.measured_ms for one in fitted]
    scale, offset_ms = affine_fit(parts, measured, table.parts_ms(table.fastest()))
    predicted = [scale * one + offset_ms for one in sums(checked)]
    errors = Errors.of(predicted, [one.measured_ms for one in checked])
    return replace(
        table,
        reference_ms=fitted[0].measured_ms,
        reference_spread=fitted[0].spread,
        scale=scale,
        offset_ms=offset_ms,
        calibration=Calibration(fitted=tuple(fitted), checked=tuple(checked), errors=errors),
    )


def sums(networks: Sequence[MeasuredNetwork]) -> list[float]:
    return [one.parts_ms for one in networks if one.parts_ms is not None]


def table_lines(table: LatencyTable) -> Iterator[Line]:
    """Result lines of every op, every network and the errors of the table, microseconds."""
    known = table.calibration
    assert known is not None, "the table was fitted"
    yield from (part_line(one) for one in table.rows)
    yield from (network_line("fitted", one) for one in known.fitted)
    yield from (network_line("checked", one) for one in known.checked)
    yield line("empty call, us", [table.overhead_ms * 1e3])
    yield line("spread of a part", [one.spread for one in table.rows])
    yield line("spread of a network", [one.spread for one in known.checked])
    yield line("network / sum of its parts", ratios(known.checked))
    yield line("line through networks: scale", [table.scale])
    yield line("line through networks: offset, us", [table.offset_ms * 1e3])
    if known.errors is not None:
        yield from error_lines(known.errors)


def part_line(one: LatencyEntry) -> Line:
    part = one.part
    shape = f"{part.in_channels}->{part.out_channels} /{part.stride} at {part.resolution} px"
    p10, p90 = round(one.p10_ms * 1e3, 3), round(one.p90_ms * 1e3, 3)
    middle = line(f"{part.op} {shape}, us", [one.median_ms * 1e3])
    return {**middle, "p10": p10, "p90": p90, "n": one.count, "spread": round(one.spread, 4)}


def network_line(kind: str, one: MeasuredNetwork) -> Line:
    parts_us = round((one.parts_ms or 0.0) * 1e3, 3)
    middle = line(f"network, {kind}, us", [one.measured_ms * 1e3])
    return {**middle, "parts_us": parts_us, "spread": round(one.spread, 4), "ops": one.ops}


def error_lines(errors: Errors) -> Iterator[Line]:
    yield line("checked networks: MAPE, %", [errors.mape * 100])
    yield line("checked networks: RMSE, us", [errors.rmse_ms * 1e3])
    yield line("checked networks within 5 %, %", [errors.within_5 * 100])
    yield line("checked networks within 10 %, %", [errors.within_10 * 100])
    yield line("checked networks: Spearman", [errors.spearman])


def ratios(networks: Sequence[MeasuredNetwork]) -> list[float]:
    return [one.measured_ms / one.parts_ms for one in networks if one.parts_ms]
