"""Status of a job, read from its folder: its owner and the progress of each case.

Nothing is written and no lease is taken, so the status can be read while a driver runs, after it
was killed, and after the end. Workers write a checkpoint after every epoch: the progress of a case
is that of its last checkpoint. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from cluster.lease import Holder, holder
from cluster.storage import Storage
from orchestration.config.storage_layout import warmup_folder
from orchestration.planning.case import Case
from orchestration.planning.cases import warmup_case
from orchestration.reports.results import has_latency, latency_ms
from orchestration.scheduling.estimate import makespan
from orchestration.state.case_files import CaseFiles, Values, case_files, stopped_searches
from orchestration.state.checkpoint_index import StageProgress, is_ended, stage_progress
from orchestration.state.result import Latencies
from orchestration.state.run_file import JobPlan, read_plan

State = Literal["done", "stopped early", "begun", "failed", "to do again", "not begun"]

Epochs = Mapping[str, int]
"""Number of epochs by stage: "warm-up", "search", "retraining"."""


@dataclass(frozen=True)
class CaseStatus:
    """Progress of a case or a warm-up."""

    name: str
    state: State
    text: str
    """The state as text, with phase and epoch."""
    latency_ms: float | None = None
    top1: float | None = None
    last_checkpoint: float | None = None
    """Time of the last checkpoint of a case in progress, seconds since 1970."""
    left: Epochs | None = field(default_factory=dict)
    """Epochs left to train; None if unknown."""
    reason: str = ""
    """Reason why the case failed or was stopped early."""


@dataclass(frozen=True)
class Left:
    """Remaining training time, from the mean time of epochs so far.

    Start-up of workers, measurements and exports are not counted.
    """

    seconds: float
    is_all: bool
    """Whether times of all stages are known; otherwise `seconds` is a lower bound."""


@dataclass(frozen=True)
class JobStatus:
    """Status of a job."""

    plan: JobPlan
    holder: Holder | None
    warmups: tuple[CaseStatus, ...]
    """Warm-ups that cases still wait for."""
    cases: tuple[CaseStatus, ...]
    epoch_s: Mapping[str, float]
    """Mean seconds per epoch so far, by stage."""

    def count(self, state: State) -> int:
        """Number of cases in this state."""
        return sum(case.state == state for case in self.cases)

    @property
    def last_checkpoint(self) -> float | None:
        """Time of the newest checkpoint of any worker, seconds since 1970."""
        times = [
            status.last_checkpoint
            for status in (*self.warmups, *self.cases)
            if status.last_checkpoint is not None
        ]
        return max(times, default=None)

    def case_left(self, case: CaseStatus) -> Left:
        """Remaining training of a case."""
        left = {stage: count for stage, count in (case.left or {}).items() if count > 0}
        timed = {stage: count for stage, count in left.items() if stage in self.epoch_s}
        seconds = sum(count * self.epoch_s[stage] for stage, count in timed.items())
        return Left(seconds, is_all=case.left is not None and timed == left)

    @property
    def left(self) -> Left:
        """Remaining training of the job."""
        warm = [self.case_left(part) for part in self.warmups]
        cases = [self.case_left(part) for part in self.cases]
        at_once = self.plan.at_once or self.count("begun")
        seconds = sum(part.seconds for part in warm)
        seconds += makespan([part.seconds for part in cases], at_once)
        return Left(seconds, self.plan.is_complete and all(part.is_all for part in (*warm, *cases)))


def job_status(root: Storage, name: str) -> JobStatus:
    """Read the status of a job.

    Args:
        root: storage of all jobs.
        name: of the job's folder.

    Raises:
        StorageError: a file of the job cannot be read.
    """
    folder = root.sub(name)
    held, plan = holder(folder), read_plan(folder)
    files_of_cases = [case_files(case, folder) for case in plan.cases]
    pairs = list(zip(plan.cases, files_of_cases, strict=True))
    stopped = stopped_searches(plan, folder)
    cases = [_case(case, files, plan, stopped.get(case.key)) for case, files in pairs]
    waiting = [case for case, files in pairs if _waits(case, files) and case.key not in stopped]
    keys = {case.warmup_key for case in plan.cases} - {None}
    warm = [stage_progress(root.sub(warmup_folder(str(key)))) for key in sorted(map(str, keys))]
    epochs = [*(entry for files in files_of_cases for entry in files.epochs()), *_histories(warm)]
    return JobStatus(plan, held, tuple(_warmups(waiting, plan, root)), tuple(cases), _means(epochs))


def _case(case: Case, files: CaseFiles, plan: JobPlan, stopped: str | None) -> CaseStatus:
    if files.result is not None:
        known_ms, top1 = _latency_ms(files.result), files.result.get("top1")
        return CaseStatus(case.name, "done", "done", known_ms, top1)
    if stopped is not None:
        return CaseStatus(case.name, "stopped early", "stopped early", reason=stopped)
    status = _undone(case, files, plan)
    reason: str = ((plan.ended or {}).get("failed") or {}).get(case.name, "")
    if not reason:
        return status
    text = "failed" if status.state == "not begun" else f"failed; {status.text}"
    return replace(status, state="failed", text=text, reason=reason)


def _undone(case: Case, files: CaseFiles, plan: JobPlan) -> CaseStatus:
    state, text = _state(files, plan)
    return CaseStatus(
        case.name,
        state,
        text,
        latency_ms=_latency_ms(files.found),
        last_checkpoint=None if files.stage is None else files.stage.written,
        left=_left(case, files, plan),
    )


def _latency_ms(network: Latencies | None) -> float | None:
    return latency_ms(network) if network is not None and has_latency(network) else None


def _state(files: CaseFiles, plan: JobPlan) -> tuple[State, str]:
    """State of a case that is not done, and its description."""
    stage = files.stage
    if files.retraining is not None:
        is_on = not _is_over(files.retraining, plan.retrain_epochs)
        how_far = f"retraining, {_epochs(files.retraining, plan.retrain_epochs)}"
        return "begun", how_far if is_on else "retrained, to be tested and exported"
    if files.found is not None:
        return "begun", "derived, not retrained"
    if stage is not None and not _is_over(stage, plan.search_epochs):
        return "begun", f"search, {_epochs(stage, plan.search_epochs)}"
    if stage is not None:
        ranked = f", {files.networks} networks of the ranking trained" if files.networks else ""
        return "begun", f"searched, not yet derived{ranked}"
    if files.networks:
        return "begun", f"{files.networks} random networks trained"
    if files.is_outdated:
        return "to do again", "to do again: its result has other settings"
    return "not begun", "not begun"


def _left(case: Case, files: CaseFiles, plan: JobPlan) -> Epochs | None:
    """Epochs left to train for a case, without its warm-up; None if unknown."""
    if plan.search_epochs is None or (case.kind == "random" and not files.is_found):
        return None
    trained = 0 if files.retraining is None else files.retraining.epoch
    left = {"retraining": (plan.retrain_epochs or 0) - trained}
    runs_search = case.search_key is None or case.hosts_search
    if case.kind == "search" and runs_search and not files.is_found:
        done = (plan.warmup_epochs or 0) if files.search is None else files.search.epoch
        left["search"] = plan.search_epochs - done
    return left


def _waits(case: Case, files: CaseFiles) -> bool:
    """Whether a case has not begun its search; its warm-up may be in progress."""
    is_begun = files.result is not None or files.is_found or files.search is not None
    return case.warmup_key is not None and not is_begun


def _warmups(waiting: Iterable[Case], plan: JobPlan, root: Storage) -> Iterator[CaseStatus]:
    """Status of each warm-up that cases wait for."""
    seeds = {case.warmup_key: case.seed for case in waiting}
    for case in (warmup_case(key, seed) for key, seed in seeds.items() if key is not None):
        folder, epochs = root.sub(warmup_folder(case.key)), plan.warmup_epochs
        stage = stage_progress(folder)
        if is_ended(folder):
            yield CaseStatus(case.name, "done", "done")
        elif stage is None:
            left = None if epochs is None else {"warm-up": epochs}
            yield CaseStatus(case.name, "not begun", "not begun", left=left)
        else:
            left = None if epochs is None else {"warm-up": epochs - stage.epoch}
            text = _epochs(stage, epochs)
            yield CaseStatus(case.name, "begun", text, last_checkpoint=stage.written, left=left)


def _epochs(stage: StageProgress, epochs: int | None) -> str:
    return f"{stage.epoch} of {epochs} epochs" if epochs else f"{stage.epoch} epochs"


def _is_over(stage: StageProgress, epochs: int | None) -> bool:
    return epochs is not None and stage.epoch >= epochs


def _histories(stages: Iterable[StageProgress | None]) -> Iterator[Values]:
    for stage in stages:
        yield from () if stage is None else stage.history


def _means(epochs: Iterable[Values]) -> dict[str, float]:
    """Mean seconds per epoch by stage. Earlier versions wrote no phase for epochs of retraining."""
    known: dict[str, list[float]] = {}
    for epoch in epochs:
        phase = epoch.get("phase", "retrain")
        stage = {"warmup": "warm-up", "retrain": "retraining"}.get(phase, "search")
        known.setdefault(stage, []).append(epoch["seconds"])
    return {stage: fmean(seconds) for stage, seconds in known.items()}
