"""Worker processes that lower and export networks, separate from those that train.

They live as long as the job: importing a compiler takes seconds and a gigabyte. If a runtime
crashes, only its process dies, and it is restarted. They reserve no cores: a table is measured
while `cluster.placement.cores_reserved` holds the cores of the node, a network while the workers of
its case wait. Compile workers run on the driver's node, timing workers on the node with the target.
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
"""Runtimes for which every trained network is exported, whatever its target is."""

MOST_COMPILERS = 8
"""Largest number of compile workers. Each takes a gigabyte of memory."""

PROGRAMS_A_SWEEP = 8
"""Number of programs that a compile worker makes between two garbage collections."""

Subject = OpSignature | Model | None
"""Subject to lower: a part, a whole network, or None for an empty call."""


@contextmanager
def compile_workers_running(nodes: Sequence[Node]) -> Iterator[None]:
    """Keep compile workers, and a timing worker on each of these nodes, while the block runs.

    Otherwise they end after each use.
    """
    held = [*_compilers(), *map(timing_worker, nodes)]
    yield
    held.clear()


def lower(space: SearchSpace, target: Target, subjects: Sequence[Subject]) -> list[Program]:
    """Lower subjects in parallel, in all compile workers.

    Raises:
        ProgramError: a subject cannot be lowered, or its process died twice.
        MeasurementError: the runtime is not installed.
    """
    pool = _compilers()[: len(subjects)]
    # Distributed round-robin. Whole networks come first, since they take longest.
    futures = [
        compiler.lower.remote(space, target, list(subjects[i :: len(pool)]))
        for i, compiler in enumerate(pool)
    ]
    done: list[list[Program]] = answer_of(futures, target)
    return [done[i % len(pool)][i // len(pool)] for i in range(len(subjects))]


@dataclass(frozen=True)
class Exported:
    """A trained network as files."""

    files: dict[str, bytes]
    """Content of each file by name: those of `export.save_model`, and programs of runtimes."""
    program: Program | None
    """The program again, ready to be timed."""
    answers: Tensor
    """Output of the network for `images`, in eager mode."""
    images: Tensor
    """One or more batches of the program."""


def exported(
    model: Model,
    weights: dict[str, Tensor],
    target: Target,
    facts: ModelFacts,
    example: Tensor,
) -> Exported:
    """Export a trained network to files, including a program for its target if that is measured.

    Args:
        model: the network.
        weights: its state dict, on the CPU.
        target: target whose runtime the program is for.
        facts: written into the model.
        example: at least two normalised images.

    Raises:
        MeasurementError: the network cannot be lowered.
    """
    compiler = _compilers()[0]
    pending = compiler.export.remote(model, weights, target, facts, example)
    result: Exported = answer_of(pending, target)
    return result


def is_beside(target: Target, own: Target) -> bool:
    """Whether an export for the target `own` includes a program for `target`."""
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
    """Lowers and exports networks. Runs as a Ray actor."""

    def __init__(self) -> None:
        import gc

        import torch

        torch.set_num_threads(1)
        gc.disable()  # takes a sixth of the time of a lowering; see `_made`
        self._uncollected = 0
        """Number of programs made since the last garbage collection."""
        self._again: dict[str, Program] = {}
        """Cached programs of whole networks and the empty call; the reference is needed often."""

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
            if isinstance(subject, OpSignature):  # not cached: its module depends on the space too
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
        """Count programs, and collect garbage every PROGRAMS_A_SWEEP of them.

        Exporters leave reference cycles: 60 MB per network with ExecuTorch, 20 MB with ONNX
        Runtime. A collection takes half a second to one second.
        """
        import gc

        self._uncollected += programs
        if self._uncollected >= PROGRAMS_A_SWEEP:
            gc.collect()
            self._uncollected = 0


def _elsewhere(target: Target, network: nn.Module, image: Tensor) -> dict[str, bytes]:
    """Programs of a trained network for the CPUs of servers and phones, with batch size 1.

    They are for users with another device. Runtimes that are not installed or cannot compile the
    network are skipped with a warning.
    """
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
        message = f"{runtime.name} cannot compile it: {type(error).__name__}: {first_line(error)}"
        raise ProgramError(message) from error


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
    if not isinstance(subject, OpSignature):  # whole networks take images of the job
        return (space.in_channels, space.resolution, space.resolution)
    return (subject.in_channels, subject.resolution, subject.resolution)
