"""Stage: the search of one case, Ray Train around `nas_core.search`. No formula in here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas_core.objective import LatencyGoal
from nas_core.search import search_epochs, start_search
from nas_core.state import SearchState
from nas_core.strategy import Trial
from nas_core.train import SearchData
from orchestration.case import Crew
from orchestration.checkpoint import Saved, save
from orchestration.data import ImageSet, split_classes
from orchestration.workers import report_epoch, timed_epochs

STAGE = "search"


@dataclass(frozen=True)
class Searched:
    """A finished search, equal on all workers, and what it worked on."""

    state: SearchState
    data: SearchData
    goal: LatencyGoal
    history: list[dict[str, Any]]
    """What happened in every epoch."""


def search(crew: Crew) -> Searched:
    """Search to the end, from the last checkpoint if there is one."""
    job, table, budget_ms = crew.work.job, crew.work.table, crew.work.case.budget_ms
    assert budget_ms is not None, "a searched case has a budget"
    state = start_search(table.space, job.search, job.seed, crew.device)
    saved = crew.saved_for(STAGE)
    history = restore(state, saved) if saved is not None else []
    data, goal = _data(crew), LatencyGoal(table, budget_ms, crew.device)
    reports = search_epochs(state, data, goal, job.search, job.seed, crew.team)
    for record in timed_epochs(reports):
        history.append(record)
        shown = {**record, "epochs": job.search.total_epochs, "budget_ms": budget_ms}
        report_epoch(shown, lambda folder: save_search(folder, state, history, crew.team.rank))
    return Searched(state, data, goal, history)


def search_parts(crew: Crew) -> tuple[ImageSet, ImageSet]:
    """Architecture part and weight part of the training images."""
    job = crew.work.job
    share = job.search.architecture_share
    return split_classes(crew.dataset.train, share, job.seed, "architecture split")


def _data(crew: Crew) -> SearchData:
    size = crew.work.job.search.batch_size
    held_out, weight = search_parts(crew)
    return SearchData(
        weight=crew.loader(weight, size, "search weights"),
        # As they are: networks are compared on these images.
        architecture=crew.loader(held_out, size, "search alphas", is_augmented=False),
    )


def restore(state: SearchState, saved: Saved) -> list[dict[str, Any]]:
    """Put a checkpoint back into a fresh state; what it lacks stays as it is there.

    Returns:
        What happened in the epochs before.
    """
    saved.load_into(state.supernet, [state.weight_optimizer, state.alpha_optimizer])
    facts = saved.counters
    state.epoch, state.alpha_steps = facts["epoch"], facts["alpha_steps"]
    state.baseline = facts.get("baseline", state.baseline)
    state.multiplier = facts.get("multiplier", state.multiplier)
    state.trials = [Trial(**{**one, "path": tuple(one["path"])}) for one in facts.get("trials", [])]
    return saved.history


def save_search(folder: Path, state: SearchState, history: list[dict[str, Any]], rank: int) -> None:
    """Write this worker's part of a checkpoint."""
    save(
        folder,
        stage=STAGE,
        counters={
            "epoch": state.epoch,
            "alpha_steps": state.alpha_steps,
            "baseline": state.baseline,
            "multiplier": state.multiplier,
            "trials": [asdict(trial) for trial in state.trials],
        },
        history=history,
        module=state.supernet,
        optimizers=[state.weight_optimizer, state.alpha_optimizer],
        rank=rank,
    )
