"""Processes that lower, export and time networks, beside those that train.

They start with the job and end with it: importing a compiler takes seconds and a gigabyte, and if a
runtime dies, it dies alone and is started again. They reserve no cores, since they work before the
workers of a case start, or while these wait for them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.hardware import Target, usable_cores
from cluster.runtimes import runtime_of
from cluster.runtimes.timing import Timing, time_calls
from nas_core.architecture import Model
from nas_core.latency import PartShape
from nas_core.settings import MeasureSettings
from nas_core.space import SearchSpace
from orchestration.export import ModelFacts, save_model

if TYPE_CHECKING:
    from torch import Tensor

MOST_COMPILERS = 8
"""Each takes a gigabyte."""

Subject = PartShape | Model | None
"""What is lowered: a part, a whole network, or (None) an empty call."""


@dataclass(frozen=True)
class Program:
    """A lowered subject and the input that it takes."""

    code: bytes
    input_shape: tuple[int, ...]


@contextmanager
def compilers_running() -> Iterator[None]:
    """Keep the processes while the block runs; without it they end after each use."""
    held = [*_compilers(), _stopwatch()]
    yield
    held.clear()


def lower(space: SearchSpace, target: Target, subjects: Sequence[Subject]) -> list[Program]:
    """Lower subjects, by as many processes as there are compilers."""
    import ray

    crew = _compilers()[: len(subjects)]
    # Dealt out like cards, whole networks first: they take longest.
    hands = [
        compiler.lower.remote(space, target, list(subjects[i :: len(crew)]))
        for i, compiler in enumerate(crew)
    ]
    done: list[list[Program]] = ray.get(hands)
    return [done[i % len(crew)][i // len(crew)] for i in range(len(subjects))]


def timed(
    programs: Sequence[Program], target: Target, settings: MeasureSettings, rounds: int
) -> list[Timing]:
    """Time programs against each other, in a process that does nothing else."""
    import ray

    words = (list(programs), target, settings, rounds)
    timings: list[Timing] = ray.get(_stopwatch().time.remote(*words))
    return timings


def exported(
    model: Model,
    weights: dict[str, Tensor],
    target: Target,
    facts: ModelFacts,
    example: Tensor,
) -> dict[str, bytes]:
    """Files of a trained network by name: `export.save_model`'s, and its program for the target.

    There is no such program for a target that is not measured.

    Args:
        model: what the network is.
        weights: its state dict, on the CPU.
        target: whose runtime the program is for.
        facts: goes into the model.
        example: at least two images as the network wants them.
    """
    import ray

    compiler = _compilers()[0]
    words = (model, weights, target, facts, example)
    files: dict[str, bytes] = ray.get(compiler.export.remote(*words))
    return files


def _compilers() -> list[Any]:
    count = min(MOST_COMPILERS, usable_cores())
    return [_process(Compiler, f"compiler {number}") for number in range(count)]


def _stopwatch() -> Any:
    return _process(Stopwatch, "stopwatch")


def _process(kind: type, name: str) -> Any:
    """The process of that name on this node, started if there is none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(kind)
        .options(
            name=f"{name} on {node}",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=2,
            max_task_retries=2,
            # This node and no other: a stand-in is measured on it.
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote()
    )


class Compiler:
    """Lowers modules to programs."""

    def __init__(self) -> None:
        import gc

        import torch

        torch.set_num_threads(1)
        gc.disable()  # a sixth of the time of a lowering; what a job lowers fits in memory

    def lower(self, space: SearchSpace, target: Target, subjects: list[Subject]) -> list[Program]:
        """Programs of untrained subjects, in their order."""
        import torch

        runtime = runtime_of(target)
        programs = []
        for subject in subjects:
            shape = (target.batch_size, *_input_shape(space, subject))
            code = runtime.compile(_module(space, subject), torch.zeros(shape))
            programs.append(Program(code, shape))
        return programs

    def export(
        self,
        model: Model,
        weights: dict[str, Tensor],
        target: Target,
        facts: ModelFacts,
        example: Tensor,
    ) -> dict[str, bytes]:
        """See `exported`."""
        network = model.build()
        network.load_state_dict(weights)
        with tempfile.TemporaryDirectory() as folder:
            save_model(network, example, facts, Path(folder))
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        if target.is_measured:
            runtime = runtime_of(target)
            files[runtime.file_name] = runtime.compile(network, example[: target.batch_size])
        return files


class Stopwatch:
    """Times programs."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)

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
        return time_calls(
            calls,
            rounds=rounds,
            sample_ms=settings.sample_ms,
            samples_per_round=settings.samples_per_round,
            run_ms=runtime.run_ms,
            rest=runtime.rest,
        )


def _module(space: SearchSpace, subject: Subject) -> Any:
    from torch import nn

    from nas_core.blocks import Head, Stem
    from nas_core.ops import OpShape, build_op

    if subject is None:
        return nn.ReLU()
    if not isinstance(subject, PartShape):
        return subject.build()
    if subject.op in ("stem", "head"):
        return Stem(space) if subject.op == "stem" else Head(space)
    shape = OpShape(subject.in_channels, subject.out_channels, subject.stride, space.bn_eps)
    return build_op(subject.op, shape)


def _input_shape(space: SearchSpace, subject: Subject) -> tuple[int, int, int]:
    if subject is None:
        return (1, 1, 1)
    if not isinstance(subject, PartShape):  # whole networks are for the images of the job
        return (space.in_channels, space.resolution, space.resolution)
    return (subject.in_channels, subject.resolution, subject.resolution)
