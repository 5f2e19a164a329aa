"""Processes that lower, export and time networks, beside those that train.

They start with the job and end with it: importing a compiler takes seconds and a gigabyte, and if a
runtime dies, it dies alone and is started again. They reserve no cores: a table is measured while
`cluster.placement.cores_reserved` holds those of the node, a network while the workers of its case
wait. Compilers run where the driver is, the stopwatch on the node that has the target.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import hardware
from cluster.hardware import Target, usable_cores
from cluster.placement import Node
from cluster.runtimes import MeasurementError, runtime_of
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


class RuntimeDiedError(MeasurementError):
    """A runtime took its process with it."""


Subject = PartShape | Model | None
"""What is lowered: a part, a whole network, or (None) an empty call."""


@dataclass(frozen=True)
class Program:
    """A lowered subject and the input that it takes."""

    code: bytes
    input_shape: tuple[int, ...]


@contextmanager
def compilers_running(nodes: Sequence[Node]) -> Iterator[None]:
    """Keep compilers, and a stopwatch on each of these nodes, while the block runs.

    Without it they end after each use.
    """
    held = [*_compilers(), *map(_stopwatch, nodes)]
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
    programs: Sequence[Program], target: Target, settings: MeasureSettings, rounds: int, node: Node
) -> list[Timing]:
    """Time programs against each other, in a process of that node that does nothing else.

    Raises:
        RuntimeDiedError: the process died, and died again when it was tried once more.
        MeasurementError: the target refuses.
    """
    import ray
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    words = (list(programs), target, settings, rounds)
    try:
        timings: list[Timing] = ray.get(_stopwatch(node).time.remote(*words))
    except (ActorDiedError, ActorUnavailableError) as error:
        raise RuntimeDiedError(f"{target.runtime} died while it ran the programs") from error
    except MeasurementError as error:  # in Ray's words, with the traceback of the process
        raise MeasurementError(str(getattr(error, "cause", error))) from None
    return timings


def target_facts(target: Target, node: Node) -> dict[str, str | int | float]:
    """What the node and the runtime know of the hardware, and where that is."""
    import ray

    known: dict[str, str | int | float] = ray.get(_stopwatch(node).facts.remote(target))
    return {**known, "host": node.host}


@dataclass(frozen=True)
class Exported:
    """A trained network as files."""

    files: dict[str, bytes]
    """By name: those of `export.save_model` and, where the target is measured, its program."""
    program: Program | None
    """The program again, ready to be timed."""
    answers: Tensor
    """What the network says of the images that the program takes, in eager mode."""
    images: Tensor


def exported(
    model: Model,
    weights: dict[str, Tensor],
    target: Target,
    facts: ModelFacts,
    example: Tensor,
) -> Exported:
    """Files of a trained network, one of them its program for the target.

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
    found: Exported = ray.get(compiler.export.remote(*words))
    return found


def answered(program: Program, images: Tensor, target: Target, node: Node) -> Tensor:
    """What a program says of images, on its target."""
    import ray

    answers: Tensor = ray.get(_stopwatch(node).answer.remote(program, images, target))
    return answers


def _compilers() -> list[Any]:
    import ray

    here, count = ray.get_runtime_context().get_node_id(), min(MOST_COMPILERS, usable_cores())
    return [_process(Compiler, f"compiler {number}", here) for number in range(count)]


def _stopwatch(node: Node) -> Any:
    return _process(Stopwatch, "stopwatch", node.id)


def _process(kind: type, name: str, node: str) -> Any:
    """The process of that name on a node, started if there is none or if it died for good."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        ray.remote(kind)
        .options(
            name=f"{name} on {node}",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            # It times on GPUs that it did not reserve: the workers that hold them wait.
            runtime_env={"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
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
        self._again: dict[str, Program] = {}
        """Whole networks and the empty call: the reference is asked for with every other."""

    def lower(self, space: SearchSpace, target: Target, subjects: list[Subject]) -> list[Program]:
        """Programs of untrained subjects, in their order."""
        import torch

        runtime = runtime_of(target)
        programs = []
        for subject in subjects:
            name = f"{target} {subject}"
            if name not in self._again:
                shape = (target.batch_size, *_input_shape(space, subject))
                code = runtime.compile(_module(space, subject), torch.zeros(shape))
                self._again[name] = Program(code, shape)
            programs.append(self._again[name])
            if isinstance(subject, PartShape):  # its module depends on the space too
                del self._again[name]
        return programs

    def export(
        self,
        model: Model,
        weights: dict[str, Tensor],
        target: Target,
        facts: ModelFacts,
        example: Tensor,
    ) -> Exported:
        """See `exported`."""
        import torch

        network = model.build().eval()
        network.load_state_dict(weights)
        repeats = -(-target.batch_size // len(example))
        images = example.repeat(repeats, 1, 1, 1)[: target.batch_size]
        with tempfile.TemporaryDirectory() as folder:
            save_model(network, example, facts, Path(folder))
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        program = None
        if target.is_measured:
            runtime = runtime_of(target)
            program = Program(runtime.compile(network, images), tuple(images.shape))
            files[runtime.file_name] = program.code
        with torch.no_grad():
            return Exported(files, program, network(images), images)


class Stopwatch:
    """Times programs."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)

    def facts(self, target: Target) -> dict[str, str | int | float]:
        """Of this machine and of what the runtime drives."""
        return {**hardware.facts(), **runtime_of(target).facts()}

    def answer(self, program: Program, images: Tensor, target: Target) -> Tensor:
        """What the program says of the images."""
        return runtime_of(target).load(program.code)(images).float().cpu()

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
