"""Processes that lower, export and time networks, beside those that train.

They start with the job and end with it: importing a compiler takes seconds and a gigabyte, and if a
runtime dies, it dies alone and is started again. They reserve no cores: a table is measured while
`cluster.placement.cores_reserved` holds those of the node, a network while the workers of its case
wait. Compilers run where the driver is, the stopwatch on the node that has the target.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.hardware import Target, usable_cores
from cluster.placement import Node
from cluster.runtimes import runtime_of
from cluster.runtimes.base import MeasurementError, ProgramError, Runtime
from nas_core.architecture import Model
from nas_core.latency import OpSignature
from nas_core.space import SearchSpace
from orchestration.programs.export import ModelFacts, save_model
from orchestration.programs.processes import answer_of, first_line, process
from orchestration.programs.timing_workers import Program, timing_worker

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

PORTABLE = ("onnxruntime", "executorch")
"""Runtimes whose programs a trained network has beside it, whatever its target is."""

MOST_COMPILERS = 8
"""Each takes a gigabyte."""

PROGRAMS_A_SWEEP = 8
"""Made by a compiler between two looks for memory that it can give back."""

Subject = OpSignature | Model | None
"""What is lowered: a part, a whole network, or (None) an empty call."""


@contextmanager
def compile_workers_running(nodes: Sequence[Node]) -> Iterator[None]:
    """Keep compilers, and a stopwatch on each of these nodes, while the block runs.

    Without it they end after each use.
    """
    held = [*_compilers(), *map(timing_worker, nodes)]
    yield
    held.clear()


def lower(space: SearchSpace, target: Target, subjects: Sequence[Subject]) -> list[Program]:
    """Lower subjects, by as many processes as there are compilers.

    Raises:
        ProgramError: one of them cannot be lowered, or a process died over it, twice.
        MeasurementError: the runtime is not installed.
    """
    pool = _compilers()[: len(subjects)]
    # Dealt out like cards, whole networks first: they take longest.
    hands = [
        compiler.lower.remote(space, target, list(subjects[i :: len(pool)]))
        for i, compiler in enumerate(pool)
    ]
    done: list[list[Program]] = answer_of(hands, target)
    return [done[i % len(pool)][i // len(pool)] for i in range(len(subjects))]


@dataclass(frozen=True)
class Exported:
    """A trained network as files."""

    files: dict[str, bytes]
    """By name: those of `export.save_model` and, where the target is measured, its program."""
    program: Program | None
    """The program again, ready to be timed."""
    answers: Tensor
    """What the network says of the images, in eager mode."""
    images: Tensor
    """A batch that the program takes, or several."""


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

    Raises:
        MeasurementError: it cannot be lowered.
    """
    compiler = _compilers()[0]
    pending = compiler.export.remote(model, weights, target, facts, example)
    found: Exported = answer_of(pending, target)
    return found


def is_beside(target: Target, own: Target) -> bool:
    """Whether a network that was exported for `own` has its program for `target` beside it."""
    if target.runtime == own.runtime:
        return _form(target) == _form(own)
    return target.runtime in PORTABLE and _form(target) == _form(_plain(target))


def _form(target: Target) -> tuple[str, str, int]:
    return (target.device, target.precision, target.batch_size)


def _plain(target: Target) -> Target:
    return replace(target, device="cpu", precision="fp32", batch_size=1, phone=None)


def _compilers() -> list[Any]:
    import ray

    here, count = ray.get_runtime_context().get_node_id(), min(MOST_COMPILERS, usable_cores())
    return [process(CompileWorker, f"compiler {number}", here) for number in range(count)]


class CompileWorker:
    """Lowers modules to programs."""

    def __init__(self) -> None:
        import gc

        import torch

        torch.set_num_threads(1)
        gc.disable()  # a sixth of the time of a lowering; `_made` collects now and then
        self._uncollected = 0
        """Programs made since."""
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
                code = _compiled(runtime, _module(space, subject), torch.zeros(shape))
                self._again[name] = Program(code, shape)
                self._made(1)
            programs.append(self._again[name])
            if isinstance(subject, OpSignature):  # its module depends on the space too
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
        repeats = -(-max(target.batch_size, len(example)) // len(example))
        number = max(target.batch_size, len(example) // target.batch_size * target.batch_size)
        images = example.repeat(repeats, 1, 1, 1)[:number]
        with tempfile.TemporaryDirectory() as folder:
            save_model(network, example, facts, Path(folder))
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        program = None
        if target.is_measured:
            runtime = runtime_of(target)
            batch = images[: target.batch_size]
            program = Program(_compiled(runtime, network, batch), tuple(batch.shape))
            files[runtime.file_name] = program.code
        files = {**_elsewhere(target, network, images[:1]), **files}
        self._made(len(PORTABLE))
        with torch.no_grad():
            return Exported(files, program, network(images), images)

    def _made(self, programs: int) -> None:
        """Count programs. Exporters leave their graphs in cycles: 60 MB of a network for
        ExecuTorch, 20 MB for ONNX Runtime. To collect takes half a second to one."""
        import gc

        self._uncollected += programs
        if self._uncollected >= PROGRAMS_A_SWEEP:
            gc.collect()
            self._uncollected = 0


def _elsewhere(target: Target, network: nn.Module, image: Tensor) -> dict[str, bytes]:
    """Programs of a trained network for processors of servers and of phones, one image at a time,
    where the runtimes are installed and can express it; for whoever has another device."""
    files = {}
    for name in set(PORTABLE) - {target.runtime}:
        runtime = runtime_of(replace(_plain(target), runtime=name))
        try:
            runtime.version()
            files[runtime.file_name] = _compiled(runtime, network, image)
        except MeasurementError as error:
            logger.warning("no %s beside the network: %s", runtime.file_name, error)
    return files


def _compiled(runtime: Runtime, module: nn.Module, example: Tensor) -> bytes:
    try:
        return runtime.compile(module, example)
    except MeasurementError:
        raise
    except Exception as error:  # exporters raise anything
        words = f"{runtime.name} cannot compile it: {type(error).__name__}: {first_line(error)}"
        raise ProgramError(words) from error


def _module(space: SearchSpace, subject: Subject) -> Any:
    from torch import nn

    from nas_core.network import Head, Stem
    from nas_core.ops import build_op
    from nas_core.shapes import OpShape

    if subject is None:
        return nn.ReLU()
    if not isinstance(subject, OpSignature):
        return subject.build()
    if subject.op in ("stem", "head"):
        return Stem(space) if subject.op == "stem" else Head(space)
    shape = OpShape(subject.in_channels, subject.out_channels, subject.stride, space.bn_eps)
    return build_op(subject.op, shape)


def _input_shape(space: SearchSpace, subject: Subject) -> tuple[int, int, int]:
    if subject is None:
        return (1, 1, 1)
    if not isinstance(subject, OpSignature):  # whole networks are for the images of the job
        return (space.in_channels, space.resolution, space.resolution)
    return (subject.in_channels, subject.resolution, subject.resolution)
