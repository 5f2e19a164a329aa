"""Stage: the search of one case, Ray Train around `nas_core.search`. No formula in here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from nas_core.batch import SearchData
from nas_core.objective import LatencyGoal
from nas_core.progress import EpochReport
from nas_core.search import search_steps, start_search
from nas_core.state import Search, SearchState
from nas_core.strategy import Trial
from orchestration.case import Crew
from orchestration.data import ImageSet, split_classes
from orchestration.stage import Meter, Stage, TimedLoader

STAGE = "search"


@dataclass(frozen=True)
class Searched:
    """A finished search, equal on all workers, and what it worked on."""

    state: SearchState
    data: SearchData
    goal: LatencyGoal
    history: list[dict[str, Any]]
    """What happened in every epoch."""
    notes: list[str] = field(default_factory=list)
    """What a person should know about how it went."""


def search(crew: Crew) -> Searched:
    """Search to the end, from the last checkpoint if there is one."""
    job, table, budget_ms = crew.work.job, crew.work.table, crew.work.case.budget_ms
    assert budget_ms is not None, "a searched case has a budget"
    state = start_search(table.space, job.search, job.seed, crew.device)
    data, goal = _data(crew), LatencyGoal(table, budget_ms, crew.device)
    weight, held_out = TimedLoader(data.weight), TimedLoader(data.architecture)
    timed = SearchData(weight, held_out)
    work = SearchWork(Search(state, timed, goal, job.search, job.seed, crew.team))
    shown = {"epochs": job.search.total_epochs, "budget_ms": budget_ms}
    hours = job.search.max_hours
    stage = Stage(crew, STAGE, work, Meter(crew, [weight, held_out]), shown, hours)
    stage.run()
    return Searched(state, data, goal, stage.history, stage.notes)


class SearchWork:
    """A search as a stage sees it."""

    def __init__(self, search: Search) -> None:
        self._search, state = search, search.state
        self.progress, self.module = state, state.supernet
        self.optimizers = [state.weight_optimizer, state.alpha_optimizer]

    def counters(self) -> dict[str, Any]:
        """What the search remembers beside its tensors; plain values."""
        state = self._search.state
        return {
            "alpha_steps": state.alpha_steps,
            "baseline": state.baseline,
            "multiplier": state.multiplier,
            "trials": [asdict(trial) for trial in state.trials],
            "scaler": state.scaler.state_dict(),
        }

    def restore(self, counters: dict[str, Any]) -> None:
        """The inverse."""
        state = self._search.state
        state.alpha_steps = counters["alpha_steps"]
        state.baseline, state.multiplier = counters["baseline"], counters["multiplier"]
        state.trials = [Trial(**{**one, "path": tuple(one["path"])}) for one in counters["trials"]]
        state.scaler.load_state_dict(counters["scaler"])

    def steps(self) -> Iterator[EpochReport | None]:
        """The loop of the search."""
        return search_steps(self._search)


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
