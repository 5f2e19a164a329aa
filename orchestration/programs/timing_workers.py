"""Processes that time networks, each on the node that has a target."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Program:
    """A lowered network or part of one, and the input that it takes."""

    code: bytes
    input_shape: tuple[int, ...]


def timed(
    programs: Sequence[Program], target: Target, settings: MeasureSettings, rounds: int, node: Node
) -> list[Timing]:
    """Time programs against each other, in a process of that node that does nothing else.

    Raises:
        ProgramError: a program crashes, or takes the process along.
        MeasurementError: the target refuses.
    """
    pending = timing_worker(node).time.remote(list(programs), target, settings, rounds)
    timings: list[Timing] = answer_of(pending, target)
    return timings


def target_facts(target: Target, node: Node) -> dict[str, str | int | float]:
    """What the node and the runtime know of the hardware, and where that is.

    Raises:
        MeasurementError: the hardware is not there.
    """
    known: dict[str, str | int | float] = answer_of(
        timing_worker(node).facts.remote(target), target
    )
    return {**known, "host": node.host}


def version_there(target: Target, node: Node) -> str:
    """Version of the target's runtime on a node.

    Raises:
        MeasurementError: it is not installed there, or is another than here, where programs are
            made and tables are named by it.
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
    """What a program says of images, on its target.

    Raises:
        MeasurementError: it cannot be run.
    """
    answers: Tensor = answer_of(timing_worker(node).answer.remote(program, images, target), target)
    return answers


def timing_worker(node: Node) -> Any:
    """The process that times on a node, started if there is none."""
    return process(TimingWorker, "stopwatch", node.id)


class TimingWorker:
    """Times programs."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._known: dict[str, dict[str, str | int | float]] = {}

    def facts(self, target: Target) -> dict[str, str | int | float]:
        """Of the hardware that is measured: this machine and what the runtime drives, or a phone.

        Clocks and temperatures are those behind the last timing, where there was one.
        """
        known = self._known.get(str(target)) or dict(runtime_of(target).facts())
        return known if target.device == "android" else {**hardware.facts(), **known}

    def version(self, target: Target) -> str:
        """Of the runtime on this machine."""
        return runtime_of(target).version()

    def answer(self, program: Program, images: Tensor, target: Target) -> Tensor:
        """What the program says of the images, as many at a time as it takes."""
        import torch

        loaded = runtime_of(target).load(program.code)
        batches = torch.split(images, program.input_shape[0])
        return torch.cat([loaded(batch).float().cpu() for batch in batches])

    def time(
        self, programs: list[Program], target: Target, settings: MeasureSettings, rounds: int
    ) -> list[Timing]:
        """Timings in the order of the programs, call overhead included."""
        import torch

        runtime = runtime_of(target)
        rng = torch.Generator().manual_seed(0)
        loaded = [runtime.load(program.code) for program in programs]
        calls = [
            one.prepared(torch.randn(program.input_shape, generator=rng))
            for one, program in zip(loaded, programs, strict=True)
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
        return timings
