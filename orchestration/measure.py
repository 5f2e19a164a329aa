"""Stage: the latency table of a target, and the latency of whole networks on it.

Parts are lowered in parallel processes, then timed by one process in interleaved rounds; an empty
call is timed with them and taken off. The sum over parts leaves out what runs between them, so the
table is scaled to pass through the reference network, measured as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.hardware import Target
from cluster.runtimes import RUNTIMES
from cluster.runtimes.timing import Timing, time_calls
from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable, PartShape, Row, parts_of
from nas_core.settings import MeasureSettings
from nas_core.space import SearchSpace
from orchestration.plan import Plan

Subject = PartShape | Architecture | None
"""What is timed: a part, a whole network, or (None) an empty call."""


@dataclass(frozen=True)
class Program:
    """A lowered subject and the input that it takes."""

    code: bytes
    input_shape: tuple[int, ...]


def measure_table(
    plan: Plan, target: Target, storage: Storage, say: Callable[[str], None]
) -> LatencyTable:
    """Measure all parts of the space and its reference network; kept in storage."""
    parts = parts_of(plan.space)
    subjects: list[Subject] = [Architecture.reference(plan.space), *parts, None]
    began = time.monotonic()
    programs = lower(plan.space, target, subjects, num_cpus=1.0)
    lowered = time.monotonic()
    timings = _timed(programs, target, plan.job.measure, num_cpus=1.0)
    table = _table(plan.space, target, parts, timings)
    storage.write_json(f"tables/{plan.table_keys[target.name]}.json", table.to_dict())
    say(_summary(table, lowered - began, time.monotonic() - lowered))
    return table


def measure_networks(
    architectures: Sequence[Architecture], target: Target, settings: MeasureSettings
) -> list[Timing]:
    """Time whole networks against each other, the empty call taken off.

    For use inside a case, whose workers hold the cores and wait meanwhile: reserves none.
    """
    subjects: list[Subject] = [*architectures, None]
    programs = lower(architectures[0].space, target, subjects, num_cpus=0.0)
    *timings, empty = _timed(programs, target, settings, num_cpus=0.0)
    return [_without(timing, empty.median_ms) for timing in timings]


def lower(
    space: SearchSpace, target: Target, subjects: Sequence[Subject], num_cpus: float
) -> list[Program]:
    """Lower subjects in as many processes as there are cores, at most one per three subjects."""
    import ray

    cores = int(ray.cluster_resources().get("CPU", 1))
    shares = max(1, min(cores, len(subjects) // 3))
    task = _task(_lower_all, num_cpus)
    # Dealt out like cards, whole networks first: they take longest.
    hands = [task.remote(space, target, list(subjects[i::shares])) for i in range(shares)]
    done = ray.get(hands)
    return [done[i % shares][i // shares] for i in range(len(subjects))]


def lower_trained(architecture: Architecture, weights: dict[str, Any], target: Target) -> bytes:
    """The program of a trained network, for its target; `weights`: its state dict on the CPU."""
    import ray

    code: bytes = ray.get(_task(_lower_trained, 0.0).remote(architecture, weights, target))
    return code


def _timed(
    programs: list[Program], target: Target, settings: MeasureSettings, num_cpus: float
) -> list[Timing]:
    import ray

    timings: list[Timing] = ray.get(_task(_time_all, num_cpus).remote(programs, target, settings))
    return timings


def _task(function: Callable[..., Any], num_cpus: float) -> Any:
    """A Ray task on this node, outside of any placement group: a stand-in is measured here."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(function).options(num_cpus=num_cpus, scheduling_strategy=here)


def _lower_all(space: SearchSpace, target: Target, subjects: list[Subject]) -> list[Program]:
    import torch

    torch.set_num_threads(1)
    runtime = RUNTIMES[target.runtime]()
    programs = []
    for subject in subjects:
        shape = (target.batch_size, *_input_shape(space, subject))
        module, example = _module(space, subject), torch.zeros(shape)
        programs.append(Program(runtime.compile(module, example), shape))
    return programs


def _lower_trained(architecture: Architecture, weights: dict[str, Any], target: Target) -> bytes:
    import torch

    network = architecture.build()
    network.load_state_dict(weights)
    shape = (target.batch_size, *_input_shape(architecture.space, architecture))
    return RUNTIMES[target.runtime]().compile(network, torch.zeros(shape))


def _time_all(programs: list[Program], target: Target, settings: MeasureSettings) -> list[Timing]:
    import torch

    runtime = RUNTIMES[target.runtime]()
    rng = torch.Generator().manual_seed(0)
    loaded = [runtime.load(program.code, target.threads) for program in programs]
    calls = [
        one.prepared(torch.randn(program.input_shape, generator=rng))
        for one, program in zip(loaded, programs, strict=True)
    ]
    return time_calls(
        calls,
        rounds=settings.rounds,
        sample_ms=settings.sample_ms,
        samples_per_round=settings.samples_per_round,
    )


def _module(space: SearchSpace, subject: Subject) -> Any:
    from torch import nn

    from nas_core.blocks import Head, Stem
    from nas_core.ops import OpShape, build_op

    if subject is None:
        return nn.ReLU()
    if isinstance(subject, Architecture):
        return subject.build()
    if subject.op in ("stem", "head"):
        return Stem(space) if subject.op == "stem" else Head(space)
    shape = OpShape(subject.in_channels, subject.out_channels, subject.stride, space.bn_eps)
    return build_op(subject.op, shape)


def _input_shape(space: SearchSpace, subject: Subject) -> tuple[int, int, int]:
    if subject is None:
        return (1, 1, 1)
    if isinstance(subject, Architecture):
        return (space.in_channels, space.resolution, space.resolution)
    return (subject.in_channels, subject.resolution, subject.resolution)


def _table(
    space: SearchSpace, target: Target, parts: Sequence[PartShape], timings: Sequence[Timing]
) -> LatencyTable:
    reference, *rows, empty = timings
    table = LatencyTable(
        target=target.name,
        hardware=target.hardware(),
        runtime=target.runtime,
        runtime_version=RUNTIMES[target.runtime]().version(),
        space=space,
        rows=tuple(_row(p, t, empty.median_ms) for p, t in zip(parts, rows, strict=True)),
        overhead_ms=empty.median_ms,
        reference_ms=reference.median_ms - empty.median_ms,
        reference_spread=reference.spread,
    )
    return table.through(Architecture.reference(space), reference.median_ms - empty.median_ms)


def _row(part: PartShape, timing: Timing, overhead_ms: float) -> Row:
    timing = _without(timing, overhead_ms)
    return Row(
        part=part,
        median_ms=timing.median_ms,
        p10_ms=timing.p10_ms,
        p90_ms=timing.p90_ms,
        spread=timing.spread,
        count=timing.count,
    )


def _without(timing: Timing, overhead_ms: float) -> Timing:
    """The timing less the empty call; no part takes less than nothing."""
    return Timing(
        median_ms=max(0.0, timing.median_ms - overhead_ms),
        p10_ms=max(0.0, timing.p10_ms - overhead_ms),
        p90_ms=max(0.0, timing.p90_ms - overhead_ms),
        spread=timing.spread,
        count=timing.count,
    )


def _summary(table: LatencyTable, lower_s: float, time_s: float) -> str:
    spreads = sorted(row.spread for row in table.rows)
    fastest, slowest = table.range_ms()
    return (
        f"{len(table.rows)} parts on {table.hardware}: lowered in {lower_s:.0f} s, "
        f"timed in {time_s:.0f} s, median spread {spreads[len(spreads) // 2]:.1%}; "
        f"networks take {fastest:.4g} to {slowest:.4g} ms, the reference "
        f"{table.reference_ms:.4g} ms, {table.scale:.3f} times the sum of its parts"
    )
