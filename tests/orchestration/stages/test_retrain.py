"""Retraining learns from the training images only, and is deterministic."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas_core.architecture import Architecture
from nas_core.settings import RetrainSettings
from nas_core.space import proxyless_small
from nas_core.train import averaged_copy, evaluate, start_training, train_epochs
from nas_core.workers import SingleProcess
from orchestration.config.data import DataSettings
from orchestration.data.dataset import Dataset, ImageSet
from orchestration.data.loader import MemoryLoader, evaluation_batches
from orchestration.data.loading import load_dataset
from orchestration.distributed.process_group import Stopped
from orchestration.stages import retrain as module
from orchestration.stages.context import CaseTask, WorkerContext
from tests.support.worker_context import Reports, context_of, tiny_job

SPACE = proxyless_small(resolution=16)
SMALLEST = Architecture(SPACE, ("mbconv_k3_e3", "skip") * 3)
SETTINGS = RetrainSettings(epochs=4, batch_size=32)


def top1_after_training(data: Dataset) -> float:
    """Accuracy on the test part after a short training."""
    torch.set_num_threads(1)
    state = start_training(SMALLEST, SETTINGS, 0, torch.device("cpu"))
    loader = MemoryLoader(data.train, data.mean, data.std, 32, 0, "retraining")
    for _ in train_epochs(state, loader, SETTINGS, 0, SingleProcess()):
        pass
    network = averaged_copy(state.network, SingleProcess())
    return evaluate(
        network, evaluation_batches(data.test, data.mean, data.std), SingleProcess()
    ).top1


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DataSettings(source="digits", resolution=16), seed=0)


@pytest.mark.slow
def test_digits_are_learnt(digits: Dataset) -> None:
    assert top1_after_training(digits) > 0.9


@pytest.mark.slow
def test_with_shuffled_labels_accuracy_falls_to_chance(digits: Dataset) -> None:
    order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(0))
    shuffled = ImageSet(digits.train.images, digits.train.labels[order])
    top1 = top1_after_training(Dataset(shuffled, digits.test, digits.classes))
    # Chance is 0.1 of 449 images: 0.2 is seven standard errors above it.
    assert top1 < 0.2


def test_the_state_of_a_retraining_is_read_from_checkpoints_that_were_written_before(
    digits: Dataset,
) -> None:
    state = start_training(SMALLEST, SETTINGS, 0, torch.device("cpu"))
    state.scaler = torch.amp.GradScaler("cpu")
    scale = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5}
    written = {"scaler": {**scale, "growth_interval": 2000, "_growth_tracker": 7}}
    loader = MemoryLoader(digits.test, digits.mean, digits.std, 64, 0, "x")
    trainable = module.RetrainTrainable(state, loader, SETTINGS, 0, SingleProcess())
    trainable.load_state_dict(written)  # "counters" of a state.json of format checkpoint/2
    assert trainable.state_dict() == written


@pytest.mark.slow
def test_training_goes_on_where_it_was_stopped(digits: Dataset) -> None:
    def weights(stops: list[int]) -> torch.Tensor:
        state = start_training(SMALLEST, SETTINGS, 0, torch.device("cpu"))
        few = digits.test.subset(torch.arange(96))
        loader = MemoryLoader(few, digits.mean, digits.std, 32, 0, "x", max_shift=0.1)
        for stop in [*stops, None]:
            epochs = train_epochs(state, loader, SETTINGS, 0, SingleProcess())
            for _ in itertools.islice(epochs, stop):
                pass
        return torch.cat([p.detach().flatten() for p in state.network.parameters()])

    assert torch.equal(weights([]), weights([1, 2]))


@pytest.mark.slow
def test_a_network_goes_on_with_the_workers_of_another_case(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "export_network", lambda *_: {})
    reports = Reports(monkeypatch)

    def context(
        storage: Path, case: str | None = None, stop_after: int | None = None
    ) -> WorkerContext:
        job = tiny_job(storage, retrain={"epochs": 3, "batch_size": 128})  # 11 steps an epoch
        return context_of(job, digits, case=case, stop_after=stop_after)

    reference = context(tmp_path, "mobile-reference").task.case
    network = Architecture.reference(context(tmp_path).space)
    whole = module.retrain(context(tmp_path / "whole"), reference, network, {})
    with pytest.raises(Stopped):
        module.retrain(context(tmp_path / "parts", stop_after=15), reference, network, {})
    reports.epochs.clear()
    result = module.retrain(context(tmp_path / "parts", "mobile-reference"), reference, network, {})
    assert [epoch["epoch"] for epoch in reports.epochs] == [1, 2]  # not the first
    assert result["retrained_weights"] == whole["retrained_weights"]


@pytest.mark.slow
def test_a_network_that_two_targets_ask_for_is_trained_once_and_exported_for_both(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[str] = []

    def export(context: WorkerContext, *_: Any) -> dict[str, Any]:
        exported.append(context.target.name)
        return {"measured_ms": context.table.reference_ms}

    monkeypatch.setattr(module, "export_network", export)
    reports = Reports(monkeypatch)
    cases = [{"target": name, "budgets_ms": ["110%"]} for name in ("mobile", "cpu")]
    job = tiny_job(tmp_path, cases)
    here, there = (context_of(job, digits, case=f"{name}-reference") for name in ("mobile", "cpu"))
    slower = replace(there.table, reference_ms=99.0)
    task = replace(here.task, elsewhere={"cpu": (there.target, slower)})
    both = replace(here, task=CaseTask.from_dict(task.to_dict()))
    trained: dict[str, module.TrainedNetwork] = {}
    network = Architecture.reference(here.space)
    first, second = (
        module.retrain(both.of(item.task.case), item.task.case, network, trained)
        for item in (here, there)
    )
    assert len(reports.epochs) == 1
    assert exported == ["mobile", "cpu"]
    assert second == {**first, "measured_ms": 99.0, "trained_with": "mobile-reference"}
