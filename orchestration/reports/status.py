"""What a job is at, read from its folder: who owns it, and how far each of its cases is.

Nothing is written and no lease is taken, so it may be asked while a driver runs, after it was
killed, and after the end. Workers write a checkpoint after every epoch: that is what is known of a
case in progress. No torch in here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from cluster.lease import Holder, holder
from cluster.storage import Storage
from orchestration.config.storage_layout import warmup_folder
from orchestration.planning.cases import Case, warmup_case
from orchestration.reports.results import has_latency, latency_ms
from orchestration.scheduling.estimate import longest_lane
from orchestration.state.case_files import CaseFiles, Values, case_files, stopped_searches
from orchestration.state.checkpoint_index import StageProgress, is_ended, stage_progress
from orchestration.state.result import Latencies
from orchestration.state.run_file import JobPlan, read_plan

State = Literal["done", "stopped early", "begun", "failed", "to do again", "not begun"]

Epochs = Mapping[str, int]
"""How many, by stage: "warm-up", "search", "retraining"."""


@dataclass(frozen=True)
class CaseStatus:
    """How far a case is, or a warm-up."""

    name: str
    state: State
    words: str
    """The state for a person, with phase and epoch."""
    latency_ms: float | None = None
    top1: float | None = None
    seen: float | None = None
    """Its last sign of life where it is in progress, seconds since 1970."""
    left: Epochs | None = field(default_factory=dict)
    """To be trained; None where that cannot be told."""
    reason: str = ""
    """Why it failed or was ended."""


@dataclass(frozen=True)
class Left:
    """Training that is left, at the pace so far. Starts of workers, measuring and exports are not
    counted."""

    seconds: float
    is_all: bool
    """Whether every stage of it was timed; else it is at least so much."""


@dataclass(frozen=True)
class JobStatus:
    """What a job is at."""

    plan: JobPlan
    holder: Holder | None
    warmups: tuple[CaseStatus, ...]
    """Those that cases still wait for."""
    cases: tuple[CaseStatus, ...]
    epoch_s: Mapping[str, float]
    """Seconds of an epoch by stage, so far."""

    def count(self, state: State) -> int:
        """Cases in this state."""
        return sum(case.state == state for case in self.cases)

    @property
    def seen(self) -> float | None:
        """When a worker has written the last checkpoint, seconds since 1970."""
        times = [one.seen for one in (*self.warmups, *self.cases) if one.seen is not None]
        return max(times, default=None)

    def case_left(self, case: CaseStatus) -> Left:
        """What is left of a case."""
        left = {stage: count for stage, count in (case.left or {}).items() if count > 0}
        timed = {stage: count for stage, count in left.items() if stage in self.epoch_s}
        seconds = sum(count * self.epoch_s[stage] for stage, count in timed.items())
        return Left(seconds, is_all=case.left is not None and timed == left)

    @property
    def left(self) -> Left:
        """What is left of the job."""
        warm = [self.case_left(one) for one in self.warmups]
        cases = [self.case_left(one) for one in self.cases]
        lanes = self.plan.at_once or self.count("begun")
        seconds = sum(one.seconds for one in warm)
        seconds += longest_lane([one.seconds for one in cases], lanes)
        return Left(seconds, self.plan.is_complete and all(one.is_all for one in (*warm, *cases)))


def job_status(root: Storage, name: str) -> JobStatus:
    """What the job is at whose folder has this name in a storage.

    Raises:
        StorageError: a file of it cannot be read.
    """
    folder = root.sub(name)
    held, plan = holder(folder), read_plan(folder)
    found = [case_files(case, folder) for case in plan.cases]
    pairs = list(zip(plan.cases, found, strict=True))
    stopped = stopped_searches(plan, folder)
    cases = [_case(case, there, plan, stopped.get(case.key)) for case, there in pairs]
    waiting = [case for case, there in pairs if _waits(case, there) and case.key not in stopped]
    keys = {case.warmup_key for case in plan.cases} - {None}
    warm = [stage_progress(root.sub(warmup_folder(str(key)))) for key in sorted(map(str, keys))]
    epochs = [*(one for there in found for one in there.epochs()), *_histories(warm)]
    return JobStatus(plan, held, tuple(_warmups(waiting, plan, root)), tuple(cases), _means(epochs))


def _case(case: Case, there: CaseFiles, plan: JobPlan, stopped: str | None) -> CaseStatus:
    if there.result is not None:
        known_ms, top1 = _latency_ms(there.result), there.result.get("top1")
        return CaseStatus(case.name, "done", "done", known_ms, top1)
    if stopped is not None:
        return CaseStatus(case.name, "stopped early", "stopped early", reason=stopped)
    status = _undone(case, there, plan)
    reason: str = ((plan.ended or {}).get("failed") or {}).get(case.name, "")
    if not reason:
        return status
    words = "failed" if status.state == "not begun" else f"failed; {status.words}"
    return replace(status, state="failed", words=words, reason=reason)


def _undone(case: Case, there: CaseFiles, plan: JobPlan) -> CaseStatus:
    state, words = _state(there, plan)
    return CaseStatus(
        case.name,
        state,
        words,
        latency_ms=_latency_ms(there.found),
        seen=None if there.stage is None else there.stage.written,
        left=_left(case, there, plan),
    )


def _latency_ms(network: Latencies | None) -> float | None:
    return latency_ms(network) if network is not None and has_latency(network) else None


def _state(there: CaseFiles, plan: JobPlan) -> tuple[State, str]:
    """Where a case is that is not done, and that in words."""
    stage = there.stage
    if there.retraining is not None:
        is_on = not _is_over(there.retraining, plan.retrain_epochs)
        how_far = f"retraining, {_epochs(there.retraining, plan.retrain_epochs)}"
        return "begun", how_far if is_on else "retrained, to be tested and exported"
    if there.found is not None:
        return "begun", "found, not retrained"
    if stage is not None and not _is_over(stage, plan.search_epochs):
        return "begun", f"search, {_epochs(stage, plan.search_epochs)}"
    if stage is not None:
        ranked = f", {there.networks} networks of the ranking trained" if there.networks else ""
        return "begun", f"searched, not yet derived{ranked}"
    if there.networks:
        return "begun", f"{there.networks} random networks trained"
    if there.is_outdated:
        return "to do again", "to do again: its result is of other settings"
    return "not begun", "not begun"


def _left(case: Case, there: CaseFiles, plan: JobPlan) -> Epochs | None:
    """What is to be trained of a case; its warm-up left out."""
    if plan.search_epochs is None or (case.kind == "random" and not there.is_found):
        return None
    trained = 0 if there.retraining is None else there.retraining.epoch
    left = {"retraining": (plan.retrain_epochs or 0) - trained}
    runs_search = case.search_key is None or case.hosts_search
    if case.kind == "search" and runs_search and not there.is_found:
        done = (plan.warmup_epochs or 0) if there.search is None else there.search.epoch
        left["search"] = plan.search_epochs - done
    return left


def _waits(case: Case, there: CaseFiles) -> bool:
    """Whether a case has not begun to search; its warm-up may be in progress."""
    is_begun = there.result is not None or there.is_found or there.search is not None
    return case.warmup_key is not None and not is_begun


def _warmups(waiting: Iterable[Case], plan: JobPlan, root: Storage) -> Iterator[CaseStatus]:
    """Those that cases wait for, each once."""
    seeds = {one.warmup_key: one.seed for one in waiting}
    for case in (warmup_case(key, seed) for key, seed in seeds.items() if key is not None):
        place, epochs = root.sub(warmup_folder(case.key)), plan.warmup_epochs
        stage = stage_progress(place)
        if is_ended(place):
            yield CaseStatus(case.name, "done", "done")
        elif stage is None:
            left = None if epochs is None else {"warm-up": epochs}
            yield CaseStatus(case.name, "not begun", "not begun", left=left)
        else:
            left = None if epochs is None else {"warm-up": epochs - stage.epoch}
            words = _epochs(stage, epochs)
            yield CaseStatus(case.name, "begun", words, seen=stage.written, left=left)


def _epochs(stage: StageProgress, epochs: int | None) -> str:
    return f"{stage.epoch} of {epochs} epochs" if epochs else f"{stage.epoch} epochs"


def _is_over(stage: StageProgress, epochs: int | None) -> bool:
    return epochs is not None and stage.epoch >= epochs


def _histories(stages: Iterable[StageProgress | None]) -> Iterator[Values]:
    for stage in stages:
        yield from () if stage is None else stage.history


def _means(epochs: Iterable[Values]) -> dict[str, float]:
    """Seconds of an epoch by stage; results of earlier versions name no phase of a retraining."""
    known: dict[str, list[float]] = {}
    for one in epochs:
        phase = one.get("phase", "retrain")
        stage = {"warmup": "warm-up", "retrain": "retraining"}.get(phase, "search")
        known.setdefault(stage, []).append(one["seconds"])
    return {stage: fmean(seconds) for stage, seconds in known.items()}
