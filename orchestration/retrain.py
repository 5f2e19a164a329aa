"""Stage: train a network from scratch and test it, Ray Train around `nas_core.train`."""

from __future__ import annotations

import copy
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from nas_core.architecture import Model
from nas_core.train import (
    TrainState,
    averaged_copy,
    evaluate,
    refresh_statistics,
    start_training,
    train_epochs,
)
from orchestration.case import Crew
from orchestration.checkpoint import save
from orchestration.compilers import exported
from orchestration.data import evaluation_batches, normalise
from orchestration.deploy import checked_program
from orchestration.export import EXAMPLE_IMAGES, ModelFacts
from orchestration.plan import Case
from orchestration.workers import report_epoch, timed_epochs

REFRESH_BATCHES = 20
"""Training batches from which BatchNorm statistics are taken before the test."""


def retrain(crew: Crew, case: Case, model: Model) -> dict[str, Any]:
    """Train to the end, from the last checkpoint if there is one; test; export.

    Returns:
        What the result of the case says about it.
    """
    job, team = crew.work.job, crew.team
    assert job.retrain is not None, "the job asks for retraining"
    stage = f"retrain {case.name}"
    state = start_training(model, job.retrain, job.seed, crew.device)
    history = _restore(crew, stage, state)
    loader = crew.loader(crew.dataset.train, job.retrain.batch_size, "retraining")
    reports = train_epochs(state, loader, job.retrain, job.seed, team)
    for record in timed_epochs(reports):
        history.append(record)
        shown = {**record, "epochs": job.retrain.epochs, "network": case.name}
        report_epoch(shown, lambda folder: _save(folder, stage, state, history, team.rank))
    network = copy.deepcopy(state.network)
    refresh_statistics(network, islice(loader.batches(state.epoch * loader.steps), REFRESH_BATCHES))
    found = _test(crew, averaged_copy(network, team), case, model)
    return {**found, "retrain_history": history}


def _test(crew: Crew, network: Any, case: Case, model: Model) -> dict[str, Any]:
    """Read the test part, once; the first worker exports the network that was tested."""
    data, team = crew.dataset, crew.team
    batches = evaluation_batches(data.test, data.mean, data.std, team.rank, team.size, crew.device)
    found = evaluate(network, batches, team)
    exported = _export(crew, network.cpu(), case, model) if team.rank == 0 else {}
    return {
        "top1": found.top1,
        "top5": found.top5,
        "test_loss": found.loss,
        "tested": found.count,
        **exported,
    }


def _export(crew: Crew, network: Any, case: Case, model: Model) -> dict[str, Any]:
    """Write the files of a trained network; what its program for the target says and takes."""
    data = crew.dataset
    channels, height, width = data.train.images.shape[1:]
    facts = ModelFacts(
        classes=data.classes,
        input_shape=(channels, height, width),
        mean=data.mean,
        std=data.std,
        architecture=model.to_dict(),
    )
    example = normalise(data.test.images[:EXAMPLE_IMAGES], data.mean, data.std)
    made = exported(model, network.state_dict(), crew.target, facts, example)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in made.files.items():
            (Path(folder) / name).write_bytes(content)
        crew.storage.write_folder(Path(folder), f"{case.folder}/model")
    return checked_program(crew, made)


def _restore(crew: Crew, stage: str, state: TrainState) -> list[dict[str, Any]]:
    saved = crew.saved_for(stage)
    if saved is None:
        return []
    saved.load_into(state.network, [state.optimizer])
    state.epoch = saved.counters["epoch"]
    return saved.history


def _save(
    folder: Path, stage: str, state: TrainState, history: list[dict[str, Any]], rank: int
) -> None:
    save(
        folder,
        stage=stage,
        counters={"epoch": state.epoch},
        history=history,
        module=state.network,
        optimizers=[state.optimizer],
        rank=rank,
    )
