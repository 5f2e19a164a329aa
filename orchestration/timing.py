"""A few steps of each phase, timed where the cases of a job will run: for its plan.

As many worker groups as will run at once do it beside each other, since they share cores; another,
of all that the cluster holds, times the warm-up. Nothing of it is kept but the seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from cluster.storage import Storage
from nas_core.architecture import Architecture, Model
from nas_core.baselines import model_from_dict
from nas_core.controls import random_within
from nas_core.objective import LatencyGoal
from nas_core.randomness import generator
from nas_core.search import search_steps, start_search
from nas_core.state import Search
from nas_core.train import start_training, train_steps
from orchestration.board import RayBoard
from orchestration.case import CaseWork, Crew, crew_of_worker
from orchestration.crewing import Crewing
from orchestration.estimate import Timings, merged
from orchestration.found import measured_together
from orchestration.retrain import export_network
from orchestration.search import search_data
from orchestration.stopping import Stopper
from orchestration.trials import run_cases

FEWEST_STEPS, MOST_STEPS, LONG_ENOUGH_S = 4, 40, 3.0
"""Steps that are timed of a phase: until they took so long together, but so many at least."""

PLACE = "timing.json"
TIMED_BY_LANES = (
    "own_warmup_step_s",
    "search_step_s",
    "retrain_step_s",
    "measure_s",
    "export_s",
    "model_step_s",
)
"""Fields of `Timings` that every lane writes down as they are."""


def timed_steps(
    works: Sequence[CaseWork],
    warmup: CaseWork | None,
    crews: tuple[Crewing, Crewing],
    folder: Storage,
    stopper: Stopper,
) -> Timings:
    """Time what cases are made of.

    Args:
        works: a case for each lane; their references are other networks whose steps are timed.
        warmup: the warm-up; None where the workers of a case train it, or there is none.
        crews: of cases, and of warm-ups.
        folder: where workers write what they measured.
        stopper: what a signal stops.

    Raises:
        RuntimeError: workers failed.
    """
    crew, large = crews
    lanes, overhead_s = _run(works, crew, folder, stopper, time_case)
    own_s = sum(lane["own_warmup_step_s"] for lane in lanes) / len(lanes)
    start_s, step_s = overhead_s, own_s
    if warmup is not None:
        (alone,), start_s = _run([warmup], large, folder, stopper, time_warm_up)
        start_s, step_s = start_s + alone["load_s"], alone["warmup_step_s"]
    return merged(
        [
            Timings(
                start_s=overhead_s + lane["load_s"],
                warmup_start_s=start_s if warmup is not None else 0.0,
                warmup_step_s=step_s,
                **{name: lane[name] for name in TIMED_BY_LANES},
            )
            for lane in lanes
        ]
    )


def _run(
    works: Sequence[CaseWork],
    crew: Crewing,
    folder: Storage,
    stopper: Stopper,
    body: Callable[[dict[str, Any]], None],
) -> tuple[list[dict[str, Any]], float]:
    """What each work measured, and the seconds that were spent outside of the workers' code."""
    began = time.monotonic()
    failed = run_cases(works, crew, folder, lambda _case, _record: None, stopper, body=body)
    wall_s = time.monotonic() - began
    if failed:
        raise RuntimeError(f"steps could not be timed: {next(iter(failed.values()))}")
    found = [folder.read_json(f"{work.case.folder}/{PLACE}") for work in works]
    return found, wall_s - max(one["inside_s"] for one in found)


def time_case(config: dict[str, Any]) -> None:
    """Body of one Ray Train worker: seconds of everything that a case does."""
    with _timed_worker(config) as (crew, seconds):
        typical = _typical(crew)
        seconds["own_warmup_step_s"] = _warmup_step_s(crew)
        seconds["search_step_s"] = _search_step_s(crew)
        seconds["retrain_step_s"] = _training_step_s(crew, typical)
        seconds["measure_s"] = _clocked(lambda: measured_together(crew, typical))
        seconds["export_s"] = _export_s(crew, typical)
        seconds["model_step_s"] = {
            other.name: _training_step_s(crew, model_from_dict(other.model))
            for other in crew.work.references
            if other.model is not None
        }


def time_warm_up(config: dict[str, Any]) -> None:
    """The same of a worker of a warm-up."""
    with _timed_worker(config) as (crew, seconds):
        seconds["warmup_step_s"] = _warmup_step_s(crew)


@contextmanager
def _timed_worker(config: dict[str, Any]) -> Iterator[tuple[Crew, dict[str, Any]]]:
    """This worker, and what is written about it when the block ends."""
    began = time.perf_counter()
    work = CaseWork.from_dict(config["work"])
    crew = crew_of_worker(work, RayBoard(config["board"], work.case.name))
    seconds: dict[str, Any] = {"load_s": time.perf_counter() - began}
    yield crew, seconds
    crew.team.wait()
    seconds["inside_s"] = time.perf_counter() - began
    if crew.team.rank == 0:
        crew.storage.write_json(f"{work.case.folder}/{PLACE}", seconds)


def _clocked(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _step_s(crew: Crew, steps: Iterator[object], together: int = 1) -> float:
    """Seconds of a step, the first ones left out; `together` so many are timed as one.

    All workers make as many steps: the first says when it was long enough.
    """
    for _ in islice(steps, together):
        pass
    spent = torch.zeros(1, dtype=torch.float64, device=crew.device)
    count = 0
    while count < FEWEST_STEPS or (count < MOST_STEPS and float(spent) < LONG_ENOUGH_S):
        if crew.team.rank == 0:
            spent += _clocked(lambda: list(islice(steps, together)))
        else:
            list(islice(steps, together))
            spent.zero_()
        crew.team.sum([spent])
        count += together
    return float(spent) / count


def _search(crew: Crew, epoch: int, goal: LatencyGoal | None) -> Search:
    job = crew.work.job
    state = start_search(crew.space, job.search, job.seed, crew.device)
    state.epoch = epoch
    return Search(state, search_data(crew), goal, job.search, job.seed, crew.team)


def _warmup_step_s(crew: Crew) -> float:
    if not crew.work.job.search.has_warmup:
        return 0.0
    return _step_s(crew, search_steps(_search(crew, 0, None)))


def _search_step_s(crew: Crew) -> float:
    """Behind the epochs that make no updates; where networks are compared, of each of them."""
    job, budget_ms = crew.work.job, crew.work.case.budget_ms
    if budget_ms is None:
        return 0.0
    first = job.search.warmup_epochs + job.search.hold_epochs
    goal = LatencyGoal(crew.table, budget_ms, crew.device)
    together = job.search.alpha_every
    return _step_s(crew, search_steps(_search(crew, first, goal)), together)


def _typical(crew: Crew) -> Architecture:
    """Some network within the budget."""
    table = crew.table
    budget_ms = crew.work.case.budget_ms or table.range_ms()[1]
    path = random_within(
        LatencyGoal(table, budget_ms, crew.device), generator(0, "a typical network")
    )
    return Architecture.from_path(table.space, path)


def _training_step_s(crew: Crew, model: Model) -> float:
    job = crew.work.job
    if job.retrain is None:
        return 0.0
    state = start_training(model, job.retrain, job.seed, crew.device)
    loader = crew.loader(crew.dataset.train, job.retrain.batch_size, "retraining")
    return _step_s(crew, train_steps(state, loader, job.retrain, job.seed, crew.team))


def _export_s(crew: Crew, model: Architecture) -> float:
    job = crew.work.job
    if job.retrain is None or crew.team.rank > 0:
        return 0.0
    network = start_training(model, job.retrain, job.seed, crew.device).network.eval().cpu()
    return _clocked(lambda: export_network(crew, network, crew.work.case, model))
