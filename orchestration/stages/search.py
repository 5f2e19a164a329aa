"""Stages: warm-up and search of a case; runs `nas_core.search` on Ray Train.

The warm-up does not depend on hardware. Its final checkpoint is kept in storage under a content
key, and the searches of all targets and budgets start from it, in this job and in others. The final
checkpoint of a search that several budgets share is kept too, in the folder of the job.
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
from nas_core.strategy import ScoredNetwork
from orchestration.config.storage_layout import SEARCH, search_folder, warmup_folder
from orchestration.data.dataset import ImageSet
from orchestration.data.loading import split_classes
from orchestration.data.streaming.subset import StreamedSet
from orchestration.planning.case import WarmUpCase
from orchestration.stages.checkpoint import Checkpoints
from orchestration.stages.context import WorkerContext
from orchestration.stages.meter import ThroughputMeter, TimedLoader
from orchestration.stages.stage import CheckpointLocation, Stage
from orchestration.state.checkpoint_index import is_ended


@dataclass(frozen=True)
class Searched:
    """A finished search, equal on all workers, with its data."""

    state: SearchState
    data: SearchData
    goal: LatencyGoal | None
    """Latency goal of the search; None for a warm-up."""
    history: list[dict[str, Any]]
    """Reports of all epochs."""
    notes: list[str] = field(default_factory=list)
    """Notes for the user about the course of the search."""

    @property
    def needed_goal(self) -> LatencyGoal:
        """The goal; must not be called for a warm-up."""
        assert self.goal is not None, "a search has a goal"
        return self.goal


def warm_up(context: WorkerContext) -> Storage | None:
    """Train the weights that searches start from, unless they exist.

    Returns:
        The folder with their checkpoint; None if searches start from scratch.
    """
    key = context.task.case.warmup_key
    if key is None:
        return None
    folder = context.root.sub(warmup_folder(key))
    location = CheckpointLocation(folder, is_kept=True)
    if not context.group.broadcast_from_first(lambda: location.is_done):
        _run(context, location, None, {"epochs": _warmup_epochs_reported(context)})
    return folder


def _origin(context: WorkerContext, folder: Storage) -> Storage | None:
    """The warm-up that a search starts from.

    None for a search in progress whose warm-up has been deleted: it is not trained again.
    """
    key = context.task.case.warmup_key
    warmup = None if key is None else context.root.sub(warmup_folder(key))

    def is_past_it() -> bool:
        is_there = warmup is not None and is_ended(warmup)
        return not is_there and bool(Checkpoints(folder).complete())

    return None if context.group.broadcast_from_first(is_past_it) else warm_up(context)


def _warmup_epochs_reported(context: WorkerContext) -> int:
    """Total epochs to report during a warm-up; includes the search if that follows immediately."""
    search = context.task.job.search
    is_alone = isinstance(context.task.case, WarmUpCase)
    return search.warmup_epochs if is_alone else search.total_epochs


def search(context: WorkerContext) -> Searched:
    """Search to the end, from the last checkpoint if there is one, else from the warm-up."""
    case, job = context.search_case, context.task.job
    shared = case.search_key
    own = context.checkpoints(case).sub(SEARCH)
    folder = own if shared is None else context.storage.sub(search_folder(shared))
    origin = _origin(context, folder)
    location = CheckpointLocation(folder, is_kept=shared is not None, origin=origin)
    goal = LatencyGoal(context.table, case.search_ms, context.device)
    reported = {"epochs": job.search.total_epochs, "budget_ms": case.search_ms}
    return _run(context, location, goal, reported)


def _run(
    context: WorkerContext,
    location: CheckpointLocation,
    goal: LatencyGoal | None,
    reported: dict[str, Any],
) -> Searched:
    job = context.task.job
    state = start_search(context.space, job.search, job.seed, context.device)
    data = search_data(context)
    weight, held_out = TimedLoader(data.weight), TimedLoader(data.architecture)
    timed = SearchData(weight, held_out)
    searched = Search(state, timed, goal, job.search, job.seed, context.group)
    work = SearchTrainable(searched, job.score_epochs)
    hours = None if goal is None else job.search.max_hours
    stage = Stage(
        context, location, work, ThroughputMeter(context, [weight, held_out]), reported, hours
    )
    stage.run()
    return Searched(state, data, goal, stage.history, stage.notes)


@dataclass(frozen=True, kw_only=True)
class ScoredReport(EpochReport):
    """Report of an epoch after which searches are compared."""

    score: float
    """Score of the search at that epoch; see `score_within`."""


class SearchTrainable:
    """A search as a `Trainable`."""

    def __init__(self, search: Search, score_epochs: Sequence[int] = ()) -> None:
        """Wrap a search; reports of `score_epochs`, counted from 0, get a score."""
        self._search, state = search, search.state
        self._score_epochs = set(score_epochs)
        self.progress, self.module = state, state.supernet
        self.optimizers = [state.weight_optimizer, state.alpha_optimizer]

    def state_dict(self) -> dict[str, Any]:
        """Counters, scored networks and gradient scaler; plain values."""
        state = self._search.state
        return {
            "alpha_steps": state.alpha_steps,
            "baseline": state.baseline,
            "multiplier": state.multiplier,
            "trials": [asdict(trial) for trial in state.trials],
            "scaler": state.scaler.state_dict(),
        }

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Continue from `values`, as made by `state_dict`."""
        state = self._search.state
        state.alpha_steps = values["alpha_steps"]
        state.baseline, state.multiplier = values["baseline"], values["multiplier"]
        state.trials = [
            ScoredNetwork(**{**value, "path": tuple(value["path"])}) for value in values["trials"]
        ]
        state.scaler.load_state_dict(values["scaler"])

    def steps(self) -> Iterator[EpochReport | None]:
        """The search loop."""
        for report in search_steps(self._search):
            is_scored = report is not None and report.epoch in self._score_epochs
            yield self._scored(report) if report is not None and is_scored else report

    def _scored(self, report: EpochReport) -> ScoredReport:
        return ScoredReport(**asdict(report), score=score_within(self._search))


def search_parts(context: WorkerContext) -> tuple[ImageSet | StreamedSet, ImageSet | StreamedSet]:
    """Architecture part and weight part of the training images."""
    job, train = context.task.job, context.dataset.train
    share, test_share = job.search.architecture_share, job.data.test_share
    if isinstance(train, StreamedSet):
        return train.split_architecture(share)
    return split_classes(train, share, job.seed, "architecture split", test_share)


def search_data(context: WorkerContext) -> SearchData:
    """Batches of the weight part and of the architecture part."""
    size = context.task.job.search.batch_size
    held_out, weight = search_parts(context)
    return SearchData(
        weight=context.loader(weight, size, "search weights"),
        # Not augmented, since networks are compared on these images.
        architecture=context.loader(held_out, size, "search alphas", is_augmented=False),
    )
