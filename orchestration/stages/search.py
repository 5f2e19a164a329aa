"""Stages: warm-up and search of a case, Ray Train around `nas_core.search`. No formula in here.

The warm-up depends on no hardware. Its end is kept in the storage, under what it depends on: the
searches of all targets and budgets begin with it, in this job and in others. A search that several
budgets share is kept too, in the folder of the job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.storage import Storage
from nas_core.batch import SearchData
from nas_core.objective import LatencyGoal
from nas_core.progress import EpochReport
from nas_core.search import score_within, search_steps, start_search
from nas_core.search_state import Search, SearchState
from nas_core.strategy import Trial
from orchestration.data.dataset import ImageSet
from orchestration.data.loading import split_classes
from orchestration.data.streaming.subset import StreamedSet
from orchestration.planning.cases import search_place, warmup_place
from orchestration.stages.checkpoint import Checkpoints
from orchestration.stages.context import Crew
from orchestration.stages.meter import Meter, TimedLoader
from orchestration.stages.stage import Ground, Stage
from orchestration.state.checkpoint_index import is_ended


@dataclass(frozen=True)
class Searched:
    """A finished search, equal on all workers, and what it worked on."""

    state: SearchState
    data: SearchData
    goal: LatencyGoal | None
    """What the search ran against; None for a warm-up."""
    history: list[dict[str, Any]]
    """What happened in every epoch."""
    notes: list[str] = field(default_factory=list)
    """What a person should know about how it went."""

    @property
    def needed_goal(self) -> LatencyGoal:
        """The goal of what was a search."""
        assert self.goal is not None, "a search has a goal"
        return self.goal


def warm_up(crew: Crew) -> Storage | None:
    """Train the weights that searches start from, unless that was done before.

    Returns:
        Where they are; None where searches start from nothing.
    """
    key = crew.work.case.warmup_key
    if key is None:
        return None
    folder = crew.root.sub(warmup_place(key))
    ground = Ground(folder, is_kept=True)
    is_done = ground.is_done
    crew.team.wait()  # until all have looked, or one would see what another has written
    if not is_done:
        _run(crew, ground, None, {"epochs": _warmup_epochs_shown(crew)})
    return folder


def _origin(crew: Crew, folder: Storage) -> Storage | None:
    """The warm-up that a search begins with, which is not trained again for one that has begun:
    the warm-up may have been removed since."""
    key = crew.work.case.warmup_key
    place = None if key is None else crew.root.sub(warmup_place(key))
    is_there = place is not None and is_ended(place)
    has_begun = bool(Checkpoints(folder).complete())
    crew.team.wait()  # until all have looked, or one would see what another has written
    if has_begun and not is_there:
        return None
    return warm_up(crew)


def _warmup_epochs_shown(crew: Crew) -> int:
    """With the search that follows in the same worker group it is counted as one."""
    search = crew.work.job.search
    return search.warmup_epochs if crew.work.case.kind == "warmup" else search.total_epochs


def search(crew: Crew) -> Searched:
    """Search to the end, from the last checkpoint if there is one, else from the warm-up."""
    case, job = crew.work.case, crew.work.job
    assert case.search_ms is not None, "a searched case has a budget"
    shared = case.search_key
    place = crew.checkpoints(case).sub("search")
    folder = place if shared is None else crew.storage.sub(search_place(shared))
    origin = _origin(crew, folder)
    ground = Ground(folder, is_kept=shared is not None, origin=origin)
    goal = LatencyGoal(crew.table, case.search_ms, crew.device)
    shown = {"epochs": job.search.total_epochs, "budget_ms": case.search_ms}
    return _run(crew, ground, goal, shown)


def _run(crew: Crew, ground: Ground, goal: LatencyGoal | None, shown: dict[str, Any]) -> Searched:
    job = crew.work.job
    state = start_search(crew.space, job.search, job.seed, crew.device)
    data = search_data(crew)
    weight, held_out = TimedLoader(data.weight), TimedLoader(data.architecture)
    timed = SearchData(weight, held_out)
    searched = Search(state, timed, goal, job.search, job.seed, crew.team)
    work = SearchWork(searched, job.score_epochs)
    hours = None if goal is None else job.search.max_hours
    stage = Stage(crew, ground, work, Meter(crew, [weight, held_out]), shown, hours)
    stage.run()
    return Searched(state, data, goal, stage.history, stage.notes)


@dataclass(frozen=True, kw_only=True)
class ScoredReport(EpochReport):
    """Of an epoch after which searches are compared."""

    score: float
    """How good the search is by then; see `score_within`."""


class SearchWork:
    """A search as a stage sees it."""

    def __init__(self, search: Search, score_epochs: Sequence[int] = ()) -> None:
        """Describe it; `score_epochs`, counted from 0 as in reports, are those that say a score."""
        self._search, state = search, search.state
        self._score_epochs = set(score_epochs)
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
        for report in search_steps(self._search):
            is_scored = report is not None and report.epoch in self._score_epochs
            yield self._scored(report) if report is not None and is_scored else report

    def _scored(self, report: EpochReport) -> ScoredReport:
        return ScoredReport(**asdict(report), score=score_within(self._search))


def search_parts(crew: Crew) -> tuple[ImageSet | StreamedSet, ImageSet | StreamedSet]:
    """Architecture part and weight part of the training images."""
    job, train = crew.work.job, crew.dataset.train
    share, test_share = job.search.architecture_share, job.data.test_share
    if isinstance(train, StreamedSet):
        return train.split_architecture(share)
    return split_classes(train, share, job.seed, "architecture split", test_share)


def search_data(crew: Crew) -> SearchData:
    """Batches of the weight part and of the architecture part."""
    size = crew.work.job.search.batch_size
    held_out, weight = search_parts(crew)
    return SearchData(
        weight=crew.loader(weight, size, "search weights"),
        # As they are: networks are compared on these images.
        architecture=crew.loader(held_out, size, "search alphas", is_augmented=False),
    )
