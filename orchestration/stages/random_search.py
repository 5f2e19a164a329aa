"""Stage: the random networks that a search has to beat.

As many as can be trained at the cost of the search, all with a latency of 95 to 100 % of its
budget by the table, are trained alone on the images that a supernet is trained on, as `retrain:`
says; the best on the architecture part goes on as what a search finds does: it is measured and
retrained on all images. Nothing here reads test images. Every network that was trained is kept in
storage, so that a case that is stopped goes on with the next one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nas_core.architecture import Architecture
from nas_core.batch import Loader, SearchData
from nas_core.derive import BudgetError
from nas_core.latency import LatencyTable
from nas_core.objective import LatencyGoal
from nas_core.progress import Evaluation
from nas_core.ranking import scoring_batches, trained_alone
from nas_core.sampling_strategies import random_networks_at
from nas_core.schedule import search_cost
from nas_core.settings import RetrainSettings
from nas_core.train import averaged_copy, evaluate
from orchestration.config.storage_layout import RANDOM_FILE, RANDOM_FORMAT
from orchestration.distributed.process_group import report_network
from orchestration.planning.cases import RandomCase
from orchestration.stages.candidate import Candidate, measured_together
from orchestration.stages.context import WorkerContext
from orchestration.stages.derive import derive_measured
from orchestration.stages.network_log import NetworkLog, from_values, to_values
from orchestration.stages.search import search_data, search_parts

SHOWN = 5
"""Of the networks that were trained, how many stand in the result."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that was trained alone, evaluated on the architecture part."""

    path: tuple[int, ...]
    """Chosen op per site."""
    latency_ms: float
    """By the table."""
    accuracy: float
    """Top-1, 0 to 1."""
    loss: float
    """Cross entropy."""
    seconds: float


def best_random(context: WorkerContext, case: RandomCase) -> Candidate:
    """The best of random networks at the budget of the case; all workers take part."""
    work = _work(context, case)
    done = _stored(context, case, work.paths)
    with context.group.stoppable():  # what is trained is stored
        for network in work.trained(len(done)):
            done.append(network)
            _store(context, case, done)
            _report(work, case, done)
    best = sorted(done, key=lambda one: -one.accuracy)
    networks = [work.architecture(one.path) for one in best]
    found = derive_measured(
        lambda table: _first_within(networks, table, work.goal.budget_ms),
        context.table,
        work.goal.budget_ms,
        lambda model: measured_together(context, model, work.goal.budget_ms),
    )
    shown = zip(best[:SHOWN], networks, strict=False)
    facts = {
        "networks": len(done),
        "best": [{**to_values(one), "ops": list(network.ops)} for one, network in shown],
        "seconds": sum(one.seconds for one in done),
    }
    return replace(found, search={"random": facts})


def _first_within(
    networks: Sequence[Architecture], table: LatencyTable, budget_ms: float
) -> Architecture:
    """The best that keeps the budget by a table, which is corrected where a network did not.

    Raises:
        BudgetError: none does.
    """
    for network in networks:
        if table.latency_ms(network) <= budget_ms:
            return network
    raise BudgetError("none of the random networks keeps the budget")


@dataclass(frozen=True)
class _Work:
    """What is trained, and with what."""

    context: WorkerContext
    goal: LatencyGoal
    data: SearchData
    training: Loader
    recipe: RetrainSettings
    paths: list[tuple[int, ...]]

    def architecture(self, path: Sequence[int]) -> Architecture:
        return Architecture.from_path(self.context.space, list(path))

    def trained(self, begun: int) -> Iterator[TrainedNetwork]:
        """Networks from this number on, one after the other."""
        for path in self.paths[begun:]:
            began = time.perf_counter()
            seen = self._evaluation(path)
            seconds = time.perf_counter() - began
            latency_ms = self.goal.path_ms(list(path))
            yield TrainedNetwork(path, latency_ms, seen.top1, seen.loss, seconds)

    def _evaluation(self, path: Sequence[int]) -> Evaluation:
        context, job = self.context, self.context.task.job
        state = trained_alone(
            self.architecture(path),
            self.training,
            self.recipe,
            job.seed,
            context.device,
            context.group,
        )
        _, held_out = scoring_batches(self.data, job.search)
        return evaluate(averaged_copy(state.network, context.group), held_out, context.group)


def _work(context: WorkerContext, case: RandomCase) -> _Work:
    job = context.task.job
    assert job.retrain is not None, "checked when the job was read"
    _, weight = search_parts(context)
    training = context.loader(weight, job.retrain.batch_size, "random weights", is_retraining=True)
    goal, data = LatencyGoal(context.table, case.budget_ms, context.device), search_data(context)
    count = _number(context, data)
    paths = [tuple(path) for path in random_networks_at(goal, count, job.seed)]
    return _Work(context, goal, data, training, job.retrain, paths)


def _number(context: WorkerContext, data: SearchData) -> int:
    """How many networks can be trained on as many images as the search sees; one or more."""
    search, retrain = context.task.job.search, context.task.job.retrain
    assert retrain is not None, "checked when the job was read"
    choices = [len(site.ops) for site in context.space.sites]
    passes = search_cost(search, data.weight.steps, choices) / data.weight.steps
    return max(1, round(passes / retrain.epochs))


def _kept(context: WorkerContext, case: RandomCase) -> NetworkLog:
    return NetworkLog(context.storage, f"{case.folder}/{RANDOM_FILE}", RANDOM_FORMAT, case.key)


def _stored(
    context: WorkerContext, case: RandomCase, paths: Sequence[tuple[int, ...]]
) -> list[TrainedNetwork]:
    """The networks that were trained before; none if others are to be trained."""
    stored = context.group.broadcast_from_first(_kept(context, case).read)
    found = [TrainedNetwork(**from_values(one)) for one in stored]
    return found if [one.path for one in found] == list(paths[: len(found)]) else []


def _store(context: WorkerContext, case: RandomCase, done: Sequence[TrainedNetwork]) -> None:
    if context.group.rank == 0:
        _kept(context, case).write([to_values(one) for one in done])


def _report(work: _Work, case: RandomCase, done: Sequence[TrainedNetwork]) -> None:
    """Hand the driver a line about the last network."""
    last = done[-1]
    report_network(
        {
            "phase": "random",
            "epoch": len(done) - 1,
            "epochs": len(work.paths),
            "loss": last.loss,
            "top1": last.accuracy,
            "latency_ms": last.latency_ms,
            "budget_ms": case.budget_ms,
            "seconds": last.seconds,
            "steps": work.recipe.epochs * work.training.steps,
            "time": time.time(),
        }
    )
