"""A search resumes from a checkpoint as if it had not been stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from nas_core.batch import Batch
from nas_core.search import alphas_digest, start_search
from nas_core.search_state import STRATEGIES, Search
from nas_core.train_step import LossError
from orchestration.data.dataset import Dataset, normalise
from orchestration.distributed.process_group import Stopped
from orchestration.stages import stage
from orchestration.stages.checkpoint import Checkpoints, Snapshot
from orchestration.stages.meter import TimedLoader
from orchestration.stages.search import (
    Searched,
    SearchTrainable,
    search,
    search_data,
    search_parts,
    warm_up,
)
from tests.support.worker_context import Reports, context_of, digits, tiny_job


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


def searched(
    dataset: Dataset, folder: Path, stop_after: int | None = None, **settings: Any
) -> tuple[Searched, Reports]:
    with pytest.MonkeyPatch.context() as patch:
        reports = Reports(patch)
        job = tiny_job(folder, search=settings)
        return search(context_of(job, dataset, stop_after=stop_after)), reports


@pytest.fixture(scope="module")
def all_digits() -> Dataset:
    """Digits whose epochs have 9 steps, for losses that are bad several times in one epoch."""
    return digits(1348)


Finished = tuple[Searched, list[dict[str, Any]]]
"""Result of a search, with its epochs."""


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An uninterrupted search, for tests that only read it."""
    result, reports = searched(dataset, tmp_path_factory.mktemp("whole"))
    return result, reports.epochs


EXACT = "donot_use_mm_for_euclid_dist"
CLOCK = ("seconds", "time", "images_per_s", "share_data", "share_communication")


def outcome(found: Searched) -> list[object]:
    """Final state of a search, without times."""
    state = found.state
    weights = {name: value.tolist() for name, value in state.supernet.state_dict().items()}
    history = [{k: v for k, v in item.items() if k not in CLOCK} for item in found.history]
    counted = (state.epoch, state.alpha_steps, state.baseline, state.multiplier, state.trials)
    return [alphas_digest(state.supernet), counted, history, json.dumps(weights)]


STEPS = {"random": 13, "evolution": 13, "rl_trials": 3}
"""Steps of a search: 4 an epoch, or 4 and 5 networks after a warm-up of 4, or one an epoch."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [0.5, *(pytest.param(p, marks=(pytest.mark.slow, pytest.mark.long)) for p in (0.2, 0.9))],
)
@pytest.mark.parametrize(
    "strategy",
    [one if one == "two_path" else pytest.param(one, marks=pytest.mark.slow) for one in STRATEGIES],
)
def test_a_search_that_was_stopped_ends_as_one_that_was_not(
    dataset: Dataset, tmp_path: Path, strategy: str, part: float
) -> None:
    whole, reports = searched(dataset, tmp_path / "whole", strategy=strategy)
    assert len(reports.epochs) == 3
    stop_after = max(2, int(part * STEPS.get(strategy, 12)))
    with pytest.raises(Stopped):
        searched(dataset, tmp_path / "stopped", stop_after, strategy=strategy)
    resumed, rest = searched(dataset, tmp_path / "stopped", strategy=strategy)
    assert len(rest.epochs) < 3 or part == 0.2
    assert outcome(resumed) == outcome(whole)


@pytest.mark.slow
def test_a_search_stopped_at_every_step_ends_as_one_that_was_not(
    dataset: Dataset, tmp_path: Path, whole: Finished
) -> None:
    stops = 0
    while True:
        try:
            result, _ = searched(dataset, tmp_path, stop_after=2)
            break
        except Stopped:
            stops += 1
    assert stops > 5
    assert outcome(result) == outcome(whole[0])


def test_the_state_of_a_search_is_read_from_checkpoints_that_were_written_before(
    dataset: Dataset, tmp_path: Path
) -> None:
    scored = {"path": [0, 3], "accuracy": 0.5, "loss": 1.5, "latency_ms": 2.5, "score": 0.25}
    written = {  # as in "counters" of a state.json of format checkpoint/2
        "alpha_steps": 4,
        "baseline": 0.5,
        "multiplier": 0.125,
        "trials": [scored],
        "scaler": {},
    }
    context = context_of(tiny_job(tmp_path), dataset)
    settings = context.task.job.search
    state = start_search(context.space, settings, 0, context.device)
    whole = Search(state, search_data(context), None, settings, 0, context.group)
    trainable = SearchTrainable(whole)
    trainable.load_state_dict(written)
    assert (state.alpha_steps, state.trials[0].path) == (4, (0, 3))
    assert json.loads(json.dumps(trainable.state_dict())) == written


def test_a_search_ends_in_time_and_says_so(dataset: Dataset, tmp_path: Path) -> None:
    result, reports = searched(dataset, tmp_path, max_hours=1e-9)
    assert [epoch["phase"] for epoch in reports.epochs] == ["warmup"]  # others start from it
    assert "max_hours is 1e-09), in epoch 2 of 3" in result.notes[0]


@pytest.mark.slow
def test_epochs_tell_where_the_time_goes(whole: Finished) -> None:
    for left, epoch in zip((2, 1, 0), whole[1], strict=True):
        assert epoch["images_per_s"] > 0
        assert 0 < epoch["share_data"] < 1
        assert epoch["share_communication"] == 0  # a single worker does not wait
        assert epoch["eta_s"] == pytest.approx(left * epoch["seconds"])


@pytest.mark.slow
def test_a_node_that_is_announced_to_go_is_answered_with_checkpoints_from_then_on(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Snapshot] = []
    notes: list[str] = []
    context = context_of(tiny_job(tmp_path), dataset)
    with pytest.MonkeyPatch.context() as patch:
        Reports(patch)
        warm_up(context)
    context.group.watchdog.is_draining = True
    monkeypatch.setattr(stage, "DRAINING_SAVE_S", 0.0)
    monkeypatch.setattr(Checkpoints, "save", lambda _self, snapshot: taken.append(snapshot))
    monkeypatch.setattr(context.control, "note", notes.append)
    Reports(monkeypatch)
    search(context)
    assert len(taken) == 8 - 1  # after every step after the one with the notice
    assert notes == ["a node will be preempted; a checkpoint every 0 s until then"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_goes_back_once_with_half_the_rate(
    all_digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_batches(monkeypatch, range(12, 17))
    result, reports = searched(all_digits, tmp_path, max_bad_steps=3)
    assert result.state.lr_share == 0.5
    assert "not finite in 4 steps in a row" in result.notes[0]
    assert "back to epoch 2, step 1, with half the learning rate" in result.notes[0]
    assert reports.notes == result.notes


@pytest.mark.slow
def test_a_loss_that_is_not_finite_twice_fails_with_what_explains_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_batches(monkeypatch, range(7, 100))
    with pytest.raises(LossError, match=r"loss nan, gradient norm nan, learning rate 0\.0"):
        searched(dataset, tmp_path, max_bad_steps=3)


def break_batches(patch: pytest.MonkeyPatch, numbers: range) -> None:
    """Loader whose batches at these positions contain NaN."""
    handed, whole = count(), TimedLoader.batches

    def batches(loader: TimedLoader, start: int) -> Iterator[Batch]:
        for batch in whole(loader, start):
            broken = next(handed) in numbers
            yield replace(batch, images=batch.images * float("nan")) if broken else batch

    patch.setattr(TimedLoader, "batches", batches)


def test_architecture_updates_see_images_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    data = {"source": "digits", "resolution": 16, "max_shift": 0.4, "flip": True}
    context = context_of(tiny_job(tmp_path, data=data), dataset)
    held_out, _ = search_parts(context)
    batch = next(search_data(context).architecture.batches(0))
    known = normalise(held_out.images, dataset.mean, dataset.std).flatten(1)
    distances = torch.cdist(batch.images.flatten(1), known, compute_mode=EXACT).min(dim=1).values
    assert float(distances.max()) == pytest.approx(0.0, abs=1e-2)
