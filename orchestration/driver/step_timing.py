"""Time a few steps of each phase on the cluster, for the estimate of a plan.

As many worker groups as a job runs concurrently are timed together, since they share cores. Another
group, of all workers that the cluster holds, times the warm-up. Only the timings are stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from cluster.storage import Storage
from nas_core.architecture import Architecture, Model
from nas_core.baselines.registry import model_from_dict
from nas_core.batch import Loader, SearchData
from nas_core.objective import LatencyGoal
from nas_core.randomness import generator
from nas_core.sampling_strategies import random_within
from nas_core.search import search_steps, start_search
from nas_core.search_settings import WITHOUT_HOLD, SearchSettings
from nas_core.search_state import Search
from nas_core.train import start_training, train_steps
from orchestration.config.digest import digest
from orchestration.config.storage_layout import STEP_TIMES_FILE
from orchestration.distributed.control_actor import RayControlClient
from orchestration.driver.loading_speed import reading_speed
from orchestration.driver.stopping import StopSignal
from orchestration.driver.trials import run_cases
from orchestration.planning.case import NamedCase, SearchCase
from orchestration.planning.worker_layout import WorkerLayout
from orchestration.scheduling.estimate import Timings
from orchestration.stages.candidate import measured_together
from orchestration.stages.context import CaseTask, WorkerContext, worker_context
from orchestration.stages.meter import TimedLoader
from orchestration.stages.retrain import export_network
from orchestration.stages.search import search_data

if TYPE_CHECKING:
    from orchestration.stages.context import WorkerContext

FEWEST_STEPS, MOST_STEPS, LONG_ENOUGH_S = 4, 40, 3.0
"""Limits of the timed steps of a phase: fewest, most, and seconds after which timing ends."""

STEPS = ("own_warmup_step_s", "search_step_s", "retrain_step_s")
"""Fields of `Timings` that every worker group measures."""


@dataclass(frozen=True)
class CaseTiming:
    """Measurements of one worker group."""

    target: str
    start_s: float
    """Time from the call to the start of its body, and from the end of its body to the end."""
    values: dict[str, Any]


def timed_steps(
    tasks: Sequence[CaseTask],
    warmup: CaseTask | None,
    layouts: tuple[WorkerLayout, WorkerLayout],
    folder: Storage,
    stop_signal: StopSignal,
) -> Timings:
    """Time all parts of cases.

    Args:
        tasks: a case of every target, and as many as run concurrently. Steps of their co-scheduled
            networks are timed too.
        warmup: the warm-up; None if the workers of a case train it, or there is none.
        layouts: of the workers of cases and of warm-ups.
        folder: workers write their measurements there.
        stop_signal: stop request of the driver.

    Raises:
        RuntimeError: workers failed.
    """
    timings = _case_timings(tasks, layouts[0], folder, stop_signal, time_case)
    steps = {name: fmean(timing.values[name] for timing in timings) for name in STEPS}
    warm = {"warmup_start_s": 0.0, "warmup_step_s": steps["own_warmup_step_s"]}
    if warmup is not None:
        (alone,) = _case_timings([warmup], layouts[1], folder, stop_signal, time_warm_up)
        step_s = alone.values["warmup_step_s"]
        warm = {"warmup_start_s": alone.start_s, "warmup_step_s": step_s}
    models = [item for timing in timings for item in timing.values["model_step_s"].items()]
    waits = [timing.values["waits"] for timing in timings]
    reading = [speed for timing in timings if (speed := timing.values["reading"]) is not None]
    return Timings(
        start_s=fmean(timing.start_s for timing in timings[: layouts[0].at_once]),
        **warm,
        **steps,
        measure_s=_by_target(timings, "measure_s"),
        export_s=_by_target(timings, "export_s"),
        model_step_s=dict(models),
        waits={phase: fmean(share[phase] for share in waits) for phase in waits[0]},
        reading_per_s=fmean(reading) if reading else None,
    )


def _by_target(timings: Sequence[CaseTiming], name: str) -> dict[str, float]:
    return {
        target: fmean(timing.values[name] for timing in timings if timing.target == target)
        for target in {timing.target for timing in timings}
    }


def _case_timings(
    tasks: Sequence[CaseTask],
    layout: WorkerLayout,
    folder: Storage,
    stop_signal: StopSignal,
    body: Callable[[dict[str, Any]], None],
) -> list[CaseTiming]:
    """Measurements of all tasks, ordered by their start."""
    began = time.time()
    failed = run_cases(tasks, layout, folder, lambda _case, _record: None, stop_signal, body=body)
    ended = time.time()
    if failed:
        raise RuntimeError(f"steps could not be timed: {next(iter(failed.values()))}")
    timings = [
        (task.case.target, folder.read_json(f"{task.case.folder}/{STEP_TIMES_FILE}"))
        for task in tasks
    ]
    tail_s = ended - max(values["ended"] for _, values in timings)
    return [
        CaseTiming(target, values["began"] - began + tail_s + values["load_s"], values)
        for target, values in sorted(timings, key=lambda item: float(item[1]["began"]))
    ]


def time_case(config: dict[str, Any]) -> None:
    """Body of one Ray Train worker: time all parts of a case."""
    with _timed_worker(config) as (context, seconds):
        typical = _typical(context)
        search, retrain = Waits(), Waits()
        seconds["own_warmup_step_s"] = _warmup_step_s(context)
        seconds["search_step_s"] = _search_step_s(context, search)
        seconds["retrain_step_s"] = _training_step_s(context, typical, retrain)
        seconds["waits"] = {"search": search.share, "retrain": retrain.share}
        seconds["reading"] = reading_speed(context)
        seconds["measure_s"] = _clocked(lambda: measured_together(context, typical))
        seconds["export_s"] = _export_s(context, typical)
        seconds["model_step_s"] = {
            digest(other.model): _training_step_s(context, model_from_dict(other.model))
            for other in context.task.co_scheduled
            if isinstance(other, NamedCase)
        }


def time_warm_up(config: dict[str, Any]) -> None:
    """Body of one Ray Train worker of a warm-up: time its steps."""
    with _timed_worker(config) as (context, seconds):
        seconds["warmup_step_s"] = _warmup_step_s(context)


@contextmanager
def _timed_worker(config: dict[str, Any]) -> Iterator[tuple[WorkerContext, dict[str, Any]]]:
    """Context manager with this worker's context and a dict that is stored when the block ends."""
    began = time.time()
    task = CaseTask.from_dict(config["task"])
    context = worker_context(task, RayControlClient(config["control"], task.case.name))
    seconds: dict[str, Any] = {"began": began, "load_s": time.time() - began}
    yield context, seconds
    context.group.barrier()
    seconds["ended"] = time.time()
    if context.group.rank == 0:
        context.storage.write_json(f"{task.case.folder}/{STEP_TIMES_FILE}", seconds)


def _clocked(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@dataclass
class Waits:
    """Share of timed steps that is spent waiting for images."""

    loaders: list[TimedLoader] = field(default_factory=list)
    share: float = 0.0

    def timed(self, loader: Loader) -> Loader:
        """Wrap a loader to measure its waiting time."""
        self.loaders.append(TimedLoader(loader))
        return self.loaders[-1]

    @property
    def waited_s(self) -> float:
        """Seconds waited so far."""
        return sum(loader.waited_s for loader in self.loaders)


def _step_s(
    context: WorkerContext, steps: Iterator[object], together: int = 1, waits: Waits | None = None
) -> float:
    """Mean seconds per step, without the first steps unless there are no others.

    `together` steps are timed as one unit. Sets the share of `waits`. All workers make the same
    number of steps: the first one decides when to end.
    """
    first_s, number = _clocked_steps(steps, together)
    waits = waits or Waits()
    spent = torch.zeros(1, dtype=torch.float64, device=context.device)
    count, own_s, waited_s = 0, 0.0, waits.waited_s
    while count < FEWEST_STEPS or (count < MOST_STEPS and float(spent) < LONG_ENOUGH_S):
        seconds, made = _clocked_steps(steps, together)
        if made == 0:
            break
        spent += seconds
        count, own_s = count + made, own_s + seconds
        if context.group.rank > 0:
            spent.zero_()
        context.group.sum([spent])
    waits.share = (waits.waited_s - waited_s) / own_s if own_s else 0.0
    return float(spent) / count if count else first_s / max(1, number)


def _clocked_steps(steps: Iterator[object], together: int) -> tuple[float, int]:
    """Make up to `together` steps; returns their seconds and number."""
    began = time.perf_counter()
    made = len(list(islice(steps, together)))
    return time.perf_counter() - began, made


def _steps(
    context: WorkerContext,
    settings: SearchSettings,
    epoch: int,
    goal: LatencyGoal | None,
    waits: Waits | None = None,
) -> Iterator[object]:
    job, data = context.task.job, search_data(context)
    if waits is not None:
        data = SearchData(waits.timed(data.weight), waits.timed(data.architecture))
    state = start_search(context.space, settings, job.seed, context.device)
    state.epoch = epoch
    return search_steps(Search(state, data, goal, settings, job.seed, context.group))


def _warmup_step_s(context: WorkerContext) -> float:
    if context.task.case.warmup_key is None:
        return 0.0
    return _step_s(context, _steps(context, context.task.job.search, 0, None))


def _search_step_s(context: WorkerContext, waits: Waits | None = None) -> float:
    """Seconds per unit of `estimate.search_units`: a weight step with its share of updates."""
    search, case = context.task.job.search, context.task.case
    if not isinstance(case, SearchCase):
        return 0.0
    if search.strategy == "rl_trials":  # counts steps of networks that are trained alone
        path = replace(search, strategy="two_path", warmup_epochs=max(1, search.warmup_epochs))
        return _step_s(context, _steps(context, path, 0, None))
    held = 0 if search.strategy in WITHOUT_HOLD else search.hold_epochs
    goal = LatencyGoal(context.table, case.search_ms, context.device)
    steps = _steps(context, search, search.warmup_epochs + held, goal, waits)
    together = 1 if search.strategy in WITHOUT_HOLD else search.alpha_every
    return _step_s(context, steps, together, waits)


def _typical(context: WorkerContext) -> Architecture:
    """A random network within the budget."""
    table = context.table
    budget_ms = context.task.case.limit_ms or table.range_ms()[1]
    path = random_within(
        LatencyGoal(table, budget_ms, context.device), generator(0, "a typical network")
    )
    return Architecture.from_path(table.space, path)


def _training_step_s(context: WorkerContext, model: Model, waits: Waits | None = None) -> float:
    job = context.task.job
    if job.retrain is None:
        return 0.0
    state = start_training(model, job.retrain, job.seed, context.device)
    part, size = context.dataset.train, job.retrain.batch_size
    waits = waits or Waits()
    loader = waits.timed(context.loader(part, size, "retraining", is_retraining=True))
    steps = train_steps(state, loader, job.retrain, job.seed, context.group)
    return _step_s(context, steps, waits=waits)


def _export_s(context: WorkerContext, model: Architecture) -> float:
    job = context.task.job
    if job.retrain is None or context.group.rank > 0:
        return 0.0
    network = start_training(model, job.retrain, job.seed, context.device).network.eval().cpu()
    return _clocked(lambda: export_network(context, network, context.task.case, model))
