"""Stage: the search of one case, Ray Train around `nas_core.search`. No formula in here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas_core.search import LatencyGoal, SearchData, SearchState, search_epochs, start_search
from orchestration.case import Crew
from orchestration.checkpoint import save
from orchestration.data import split_classes
from orchestration.workers import report_epoch, timed_epochs

STAGE = "search"


def search(crew: Crew) -> tuple[SearchState, list[dict[str, Any]]]:
    """Search to the end, from the last checkpoint if there is one.

    Returns:
        The finished state, equal on all workers, and what happened in every epoch.
    """
    job, table, budget_ms = crew.work.job, crew.work.table, crew.work.case.budget_ms
    assert budget_ms is not None, "a searched case has a budget"
    state = start_search(table.space, job.search, job.seed, crew.device)
    history = _restore(crew, state)
    goal = LatencyGoal(table, budget_ms, crew.device)
    reports = search_epochs(state, _data(crew), goal, job.search, job.seed, crew.team)
    for record in timed_epochs(reports):
        history.append(record)
        shown = {**record, "epochs": job.search.total_epochs, "budget_ms": budget_ms}
        report_epoch(shown, lambda folder: _save(folder, state, history, crew.team.rank))
    return state, history


def _data(crew: Crew) -> SearchData:
    job = crew.work.job
    share, size = job.search.architecture_share, job.search.batch_size
    held_out, weight = split_classes(crew.dataset.train, share, job.seed, "architecture split")
    return SearchData(
        weight=crew.loader(weight, size, "search weights"),
        architecture=crew.loader(held_out, size, "search alphas"),
    )


def _restore(crew: Crew, state: SearchState) -> list[dict[str, Any]]:
    saved = crew.saved_for(STAGE)
    if saved is None:
        return []
    saved.load_into(state.supernet, [state.weight_optimizer, state.alpha_optimizer])
    state.epoch, state.alpha_steps = saved.counters["epoch"], saved.counters["alpha_steps"]
    return saved.history


def _save(folder: Path, state: SearchState, history: list[dict[str, Any]], rank: int) -> None:
    save(
        folder,
        stage=STAGE,
        counters={"epoch": state.epoch, "alpha_steps": state.alpha_steps},
        history=history,
        module=state.supernet,
        optimizers=[state.weight_optimizer, state.alpha_optimizer],
        rank=rank,
    )
