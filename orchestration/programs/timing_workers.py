"""Worker processes that time programs, each on the node with the target."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster import hardware
from cluster.hardware import Target
from cluster.placement import Node
from cluster.runtimes import runtime_of
from cluster.runtimes.base import MeasurementError
from cluster.runtimes.timing import Timing, time_calls
from nas_core.settings import MeasureSettings
from orchestration.programs.processes import answer_of, process

if TYPE_CHECKING:
    from torch import Tensor


SPANS_S = 10.0
"""Limit of the wait for the spans of a timing worker, seconds."""


@dataclass(frozen=True)
class Program:
    """A lowered network or part of a network, and the shape of its input."""

    code: bytes
    input_shape: tuple[int, ...]


def timed(
    programs: Sequence[Program], target: Target, settings: MeasureSettings, rounds: int, node: Node
) -> list[Timing]:
    """Time programs in interleaved rounds, in a process on the node that does nothing else.

    Raises:
        ProgramError: a program fails, or crashes the process.
        MeasurementError: the target cannot be measured.
    """
    pending = timing_worker(node).time.remote(list(programs), target, settings, rounds)
    timings: list[Timing] = answer_of(pending, target)
    return timings


def target_facts(target: Target, node: Node) -> dict[str, str | int | float]:
    """Facts of the node and the runtime about the hardware, and the name of the host.

    Raises:
        MeasurementError: the hardware is not available.
    """
    known: dict[str, str | int | float] = answer_of(
        timing_worker(node).facts.remote(target), target
    )
    return {**known, "host": node.host}


def version_there(target: Target, node: Node) -> str:
    """Version of the target's runtime on a node.

    Raises:
        MeasurementError: it is not installed there, or differs from the version here, which
            compiles programs and enters the keys of tables.
    """
    here = runtime_of(target).version()
    there: str = answer_of(timing_worker(node).version.remote(target), target)
    if there != here:
        raise MeasurementError(
            f"{target.runtime} is {there} on {node.host}, where '{target.name}' is measured, and "
            f"{here} on the driver; install the same there"
        )
    return there


def answered(program: Program, images: Tensor, target: Target, node: Node) -> Tensor:
    """Outputs of a program for images, computed on its target.

    Raises:
        MeasurementError: the program cannot be run.
    """
    answers: Tensor = answer_of(timing_worker(node).answer.remote(program, images, target), target)
    return answers


def timing_spans(node: Node) -> list[tuple[float, float]]:
    """Times at which a node has begun and ended to time programs, seconds since the epoch.

    None are known of a process that was lost, or that has ended since.
    """
    import ray
    from ray.exceptions import RayError

    try:
        return list(ray.get(timing_worker(node).spans.remote(), timeout=SPANS_S))
    except RayError:
        return []


def timing_worker(node: Node) -> Any:
    """Timing worker of a node, started if there is none."""
    return process(TimingWorker, "stopwatch", node.id)


class TimingWorker:
    """Times programs on its node. Runs as a Ray actor."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._known: dict[str, dict[str, str | int | float]] = {}
        self._spans: list[tuple[float, float]] = []

    def spans(self) -> list[tuple[float, float]]:
        """Begin and end of each call of `time`, seconds since the epoch."""
        return self._spans

    def facts(self, target: Target) -> dict[str, str | int | float]:
        """Facts about the hardware that is measured: this machine and its devices, or a phone.

        Clocks and temperatures are those after the last timing, if there was one.
        """
        known = self._known.get(str(target)) or dict(runtime_of(target).facts())
        return known if target.device == "android" else {**hardware.facts(), **known}

    def version(self, target: Target) -> str:
        """Version of the runtime on this machine."""
        return runtime_of(target).version()

    def answer(self, program: Program, images: Tensor, target: Target) -> Tensor:
        """Outputs of the program for images, computed in batches of its own size."""
        import torch

        loaded = runtime_of(target).load(program.code)
        batches = torch.split(images, program.input_shape[0])
        return torch.cat([loaded(batch).float().cpu() for batch in batches])

    def time(
        self, programs: list[Program], target: Target, settings: MeasureSettings, rounds: int
    ) -> list[Timing]:
        """Timings in the order of the programs, call overhead included."""
        import torch

        began, runtime = time.time(), runtime_of(target)
        rng = torch.Generator().manual_seed(0)
        loaded = [runtime.load(program.code) for program in programs]
        calls = [
            runnable.prepared(torch.randn(program.input_shape, generator=rng))
            for runnable, program in zip(loaded, programs, strict=True)
        ]
        timings = time_calls(
            calls,
            rounds=rounds,
            sample_ms=settings.sample_ms,
            samples_per_round=settings.samples_per_round,
            run_ms=runtime.run_ms,
            rest=runtime.rest,
        )
        self._known[str(target)] = dict(runtime.facts())
        self._spans.append((began, time.time()))
        return timings
