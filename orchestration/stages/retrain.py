"""Stage: train a network from scratch, test and export it; runs `nas_core.train` on Ray Train."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from cluster.runtimes.base import MeasurementError
from nas_core.architecture import Model
from nas_core.batch import Loader
from nas_core.progress import EpochReport
from nas_core.search import weights_digest
from nas_core.settings import RetrainSettings
from nas_core.train import (
    REFRESH_BATCHES,
    TrainState,
    averaged_copy,
    evaluate,
    refresh_statistics,
    start_training,
    train_steps,
)
from nas_core.workers import ProcessGroup
from orchestration.config.storage_layout import MODEL, RETRAIN
from orchestration.data.dataset import normalise
from orchestration.latency.device import node_of
from orchestration.latency.network import measure_program
from orchestration.planning.case import Case
from orchestration.programs.compile_workers import Exported, exported
from orchestration.programs.export import EXAMPLE_IMAGES, ModelFacts
from orchestration.programs.timing_workers import answered
from orchestration.stages.context import WorkerContext
from orchestration.stages.meter import ThroughputMeter, TimedLoader
from orchestration.stages.stage import CheckpointLocation, Stage
from orchestration.state.result import Program, Retrained, Training


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that was trained and tested; does not depend on the target."""

    case: str
    """Name of the case that trained it."""
    network: nn.Module
    """Trained network on the CPU."""
    facts: Retrained
    """Facts for the results of all cases with this network."""


def retrain(
    context: WorkerContext, case: Case, model: Model, trained: dict[str, TrainedNetwork]
) -> Retrained:
    """Train to the end, resuming from the last checkpoint if there is one; test; export.

    Args:
        context: of the case.
        case: the case whose network this is.
        model: the network.
        trained: networks that these workers have trained for other targets, by digest. Such a
            network is not trained again; a new one is added.

    Returns:
        Facts about the retraining for the result of the case.
    """
    key = model.digest()
    if key not in trained:
        trained[key] = _train(context, case, model)
    done = trained[key]
    shared: Training = {} if done.case == case.name else {"trained_with": done.case}
    program: Program = {}
    if context.group.rank == 0:
        program = export_network(context, done.network, case, model)
    return {**done.facts, **shared, **program}


def _train(context: WorkerContext, case: Case, model: Model) -> TrainedNetwork:
    job, group = context.task.job, context.group
    assert job.retrain is not None, "the job asks for retraining"
    state = start_training(model, job.retrain, job.seed, context.device)
    loader = TimedLoader(
        context.loader(
            context.dataset.train, job.retrain.batch_size, "retraining", is_retraining=True
        )
    )
    work = RetrainTrainable(state, loader, job.retrain, job.seed, group)
    reported = {"epochs": job.retrain.epochs, "network": case.name}
    location = CheckpointLocation(context.checkpoints(case).sub(RETRAIN))
    stage = Stage(context, location, work, ThroughputMeter(context, [loader]), reported)
    stage.run()
    network = copy.deepcopy(state.network)
    refresh_statistics(network, islice(loader.batches(state.epoch * loader.steps), REFRESH_BATCHES))
    weights = weights_digest(network)
    group.agree("the weights of the network", weights)
    tested = averaged_copy(network, group)
    facts: Retrained = {
        **_test(context, tested),
        "retrain_history": stage.history,
        "retrained_weights": weights,
    }
    return TrainedNetwork(case.name, tested.cpu(), facts)


class RetrainTrainable:
    """A retraining as a `Trainable`."""

    def __init__(
        self,
        state: TrainState,
        loader: Loader,
        settings: RetrainSettings,
        seed: int,
        group: ProcessGroup,
    ) -> None:
        self._state, self._loader, self._settings = state, loader, settings
        self._seed, self._group = seed, group
        self.progress, self.module, self.optimizers = state, state.network, [state.optimizer]

    def state_dict(self) -> dict[str, Any]:
        """The gradient scaler; plain values."""
        return {"scaler": self._state.scaler.state_dict()}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Continue from `values`, as made by `state_dict`."""
        self._state.scaler.load_state_dict(values["scaler"])

    def steps(self) -> Iterator[EpochReport | None]:
        """The training loop."""
        return train_steps(self._state, self._loader, self._settings, self._seed, self._group)


def _test(context: WorkerContext, network: nn.Module) -> Retrained:
    """Evaluate on the test images, which are used only here."""
    evaluation = evaluate(network, context.test_batches(), context.group)
    return {
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "test_loss": evaluation.loss,
        "tested": evaluation.count,
    }


def export_network(context: WorkerContext, network: Any, case: Case, model: Model) -> Program:
    """Write the files of a trained network; returns the checks and latency of its program."""
    data = context.dataset
    facts = ModelFacts(
        classes=data.classes,
        input_shape=data.shape,
        mean=data.mean,
        std=data.std,
        architecture=model.to_dict(),
        is_cropped=data.is_cropped,
    )
    example = normalise(data.examples(EXAMPLE_IMAGES), data.mean, data.std)
    made = exported(model, network.state_dict(), context.target, facts, example)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in made.files.items():
            (Path(folder) / name).write_bytes(content)
        context.storage.write_folder(Path(folder), f"{case.folder}/{MODEL}")
    return checked_program(context, made, case.limit_ms)


LARGEST_ERROR = 1e-3
"""Largest error of any logit in fp32."""


def checked_program(
    context: WorkerContext, exported: Exported, budget_ms: float | None = None
) -> Program:
    """Error and latency of the program of a trained network; empty if there is no program.

    Raises:
        MeasurementError: an fp32 program's outputs differ from the network's.
    """
    if exported.program is None:
        return {}
    target = context.target
    node = node_of(context.table, target)
    answers = answered(exported.program, exported.images, target, node)
    error = float((answers - exported.answers).abs().max())
    if target.precision == "fp32" and not error < LARGEST_ERROR:
        raise MeasurementError(
            f"the program for {target.hardware()} differs from the network by {error:.2g}; "
            f"expected less than {LARGEST_ERROR:g}: leave out the ops that {target.runtime} gets "
            "wrong, or report it there"
        )
    measured = measure_program(
        exported.program, context.table, target, context.task.job.measure, budget_ms
    )
    return {
        "program_error": error,
        "measured_ms": measured.ms,
        "measured_spread": measured.spread,
        "measured_drift": measured.drift,
    }
