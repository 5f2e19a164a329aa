"""The search of a case goes on from a checkpoint as if it had not been stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nas_core.search import alphas_digest
from nas_core.state import STRATEGIES
from orchestration.checkpoint import Saved, load
from orchestration.data import Dataset, normalise
from orchestration.search import Searched, _data, search, search_parts
from tests.orchestration.crew import Reports, crew_of, digits, tiny_job

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


def searched(
    dataset: Dataset, folder: Path, strategy: str, saved: Saved | None = None
) -> tuple[Searched, Reports]:
    with pytest.MonkeyPatch.context() as patch:
        reports = Reports(patch, folder)
        job = tiny_job(folder, search={"strategy": strategy})
        return search(crew_of(job, dataset, saved=saved)), reports


def outcome(found: Searched) -> list[object]:
    """All that the search ended with, but the clock."""
    state = found.state
    weights = {name: value.tolist() for name, value in state.supernet.state_dict().items()}
    history = [
        {k: v for k, v in one.items() if k not in ("seconds", "time")} for one in found.history
    ]
    counted = (state.epoch, state.alpha_steps, state.baseline, state.multiplier, state.trials)
    return [alphas_digest(state.supernet), counted, history, json.dumps(weights)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_that_was_stopped_ends_as_one_that_was_not(
    dataset: Dataset, tmp_path: Path, strategy: str
) -> None:
    whole, reports = searched(dataset, tmp_path / "whole", strategy)
    assert len(reports.epochs) == 3
    stopped_after = load(tmp_path / "whole" / "after-1", 0, CPU)
    resumed, rest = searched(dataset, tmp_path / "resumed", strategy, stopped_after)
    assert len(rest.epochs) == 1
    assert outcome(resumed) == outcome(whole)


@pytest.mark.parametrize(
    ("strategy", "counter"),
    [("two_path", "multiplier"), ("reinforce", "baseline"), ("random", "trials")],
)
def test_what_a_strategy_remembers_is_in_its_checkpoint(
    dataset: Dataset, tmp_path: Path, strategy: str, counter: str
) -> None:
    searched(dataset, tmp_path, strategy)
    assert load(tmp_path / "after-2", 0, CPU).counters[counter]


def test_a_checkpoint_of_an_earlier_version_is_read_with_defaults(
    dataset: Dataset, tmp_path: Path
) -> None:
    searched(dataset, tmp_path, "two_path")
    place = tmp_path / "after-0" / "state.json"
    values = json.loads(place.read_text())
    for name in ("baseline", "multiplier", "trials"):
        del values["counters"][name]
    place.write_text(json.dumps(values))
    found, rest = searched(dataset, tmp_path / "on", "two_path", load(place.parent, 0, CPU))
    assert len(rest.epochs) == 2
    assert found.state.trials == []


def test_architecture_updates_see_images_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    data = {"source": "digits", "resolution": 16, "max_shift": 0.4, "flip": True}
    crew = crew_of(tiny_job(tmp_path, data=data), dataset)
    held_out, _ = search_parts(crew)
    batch = next(_data(crew).architecture.batches(0))
    known = normalise(held_out.images, dataset.mean, dataset.std).flatten(1)
    distances = torch.cdist(batch.images.flatten(1), known).min(dim=1).values
    assert float(distances.max()) == pytest.approx(0.0, abs=1e-2)
