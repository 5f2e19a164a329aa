"""Stage: random search, the baseline of a search with the same budget.

Samples as many networks as can be trained at the cost of the search, with a latency of 95 to 100 %
of its budget by the table. Each is trained alone with the recipe of `retrain:` on the images that a
supernet is trained on. The best one on the architecture part is measured and retrained on all
images, as a searched network is. Test images are not used. Every trained network is stored, so that
a case that is stopped resumes with the next one.
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
from orchestration.planning.case import RandomCase
from orchestration.stages.candidate import Candidate, measured_together
from orchestration.stages.context import WorkerContext
from orchestration.stages.derive import derive_measured
from orchestration.stages.network_log import NetworkLog, from_values, to_values
from orchestration.stages.search import search_data, search_parts

SHOWN = 5
"""Number of trained networks that are listed in the result."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that was trained alone, evaluated on the architecture part."""

    path: tuple[int, ...]
    """Chosen op per site."""
    latency_ms: float
    """Latency by the table."""
    accuracy: float
    """Top-1, 0 to 1."""
    loss: float
    """Cross entropy."""
    seconds: float


def best_random(context: WorkerContext, case: RandomCase) -> Candidate:
    """The best random network within the budget of the case. Called by all workers."""
    work = _work(context, case)
    done = _trained_before(context, case, work.paths)
    with context.group.stoppable():  # what is trained is stored
        for network in work.trained(len(done)):
            done.append(network)
            _write(context, case, done)
            _report(work, case, done)
    best = sorted(done, key=lambda network: -network.accuracy)
    architectures = [work.architecture(network.path) for network in best]
    candidate = derive_measured(
        lambda table: _first_within(architectures, table, work.goal.budget_ms),
        context.table,
        work.goal.budget_ms,
        lambda model: measured_together(context, model, work.goal.budget_ms),
    )
    shown = zip(best[:SHOWN], architectures, strict=False)
    facts = {
        "networks": len(done),
        "best": [{**to_values(network), "ops": list(model.ops)} for network, model in shown],
        "seconds": sum(network.seconds for network in done),
    }
    return replace(candidate, search={"random": facts})


def _first_within(
    networks: Sequence[Architecture], table: LatencyTable, budget_ms: float
) -> Architecture:
    """The best network within the budget by a table that may have been recalibrated.

    Raises:
        BudgetError: no network is.
    """
    for network in networks:
        if table.latency_ms(network) <= budget_ms:
            return network
    raise BudgetError("none of the random networks keeps the budget")


@dataclass(frozen=True)
class _Work:
    """The networks to train, with data and recipe."""

    context: WorkerContext
    goal: LatencyGoal
    data: SearchData
    training: Loader
    recipe: RetrainSettings
    paths: list[tuple[int, ...]]

    def architecture(self, path: Sequence[int]) -> Architecture:
        return Architecture.from_path(self.context.space, list(path))

    def trained(self, begun: int) -> Iterator[TrainedNetwork]:
        """Train the networks from this index on, one after the other."""
        for path in self.paths[begun:]:
            began = time.perf_counter()
            evaluation = self._evaluation(path)
            seconds = time.perf_counter() - began
            latency_ms = self.goal.path_ms(list(path))
            yield TrainedNetwork(path, latency_ms, evaluation.top1, evaluation.loss, seconds)

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
    """Number of networks that can be trained at the cost of the search, at least 1."""
    search, retrain = context.task.job.search, context.task.job.retrain
    assert retrain is not None, "checked when the job was read"
    choices = [len(site.ops) for site in context.space.sites]
    passes = search_cost(search, data.weight.steps, choices) / data.weight.steps
    return max(1, round(passes / retrain.epochs))


def _log(context: WorkerContext, case: RandomCase) -> NetworkLog:
    return NetworkLog(context.storage, f"{case.folder}/{RANDOM_FILE}", RANDOM_FORMAT, case.key)


def _trained_before(
    context: WorkerContext, case: RandomCase, paths: Sequence[tuple[int, ...]]
) -> list[TrainedNetwork]:
    """Networks trained by earlier attempts; none if the sample has changed."""
    stored = context.group.broadcast_from_first(_log(context, case).read)
    networks = [TrainedNetwork(**from_values(values)) for values in stored]
    return networks if [n.path for n in networks] == list(paths[: len(networks)]) else []


def _write(context: WorkerContext, case: RandomCase, done: Sequence[TrainedNetwork]) -> None:
    if context.group.rank == 0:
        _log(context, case).write([to_values(network) for network in done])


def _report(work: _Work, case: RandomCase, done: Sequence[TrainedNetwork]) -> None:
    """Report the last network to the driver."""
    last = done[-1]
    work.context.report(
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
