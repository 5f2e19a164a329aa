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
from orchestration.distributed.process_group import report_network
from orchestration.planning.cases import Case
from orchestration.stages.candidate import Found, measured_together
from orchestration.stages.context import Crew
from orchestration.stages.derive import derive_measured
from orchestration.stages.network_log import KeptNetworks, from_values, to_values
from orchestration.stages.search import search_data, search_parts

FORMAT = "random-networks/1"

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


def best_random(crew: Crew, case: Case) -> Found:
    """The best of random networks at the budget of the case; all workers take part."""
    assert case.budget_ms is not None, "random networks have the budget of a search"
    work = _work(crew, case)
    done = _stored(crew, case, work.paths)
    crew.team.wait()  # until all have looked, or one would see what another has just written
    with crew.team.stoppable():  # what is trained is stored
        for network in work.trained(len(done)):
            done.append(network)
            _store(crew, case, done)
            _report(work, case, done)
    best = sorted(done, key=lambda one: -one.accuracy)
    networks = [work.architecture(one.path) for one in best]
    found = derive_measured(
        lambda table: _first_within(networks, table, work.goal.budget_ms),
        crew.table,
        work.goal.budget_ms,
        lambda model: measured_together(crew, model, work.goal.budget_ms),
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

    crew: Crew
    goal: LatencyGoal
    data: SearchData
    training: Loader
    recipe: RetrainSettings
    paths: list[tuple[int, ...]]

    def architecture(self, path: Sequence[int]) -> Architecture:
        return Architecture.from_path(self.crew.space, list(path))

    def trained(self, begun: int) -> Iterator[TrainedNetwork]:
        """Networks from this number on, one after the other."""
        for path in self.paths[begun:]:
            began = time.perf_counter()
            seen = self._evaluation(path)
            seconds = time.perf_counter() - began
            latency_ms = self.goal.path_ms(list(path))
            yield TrainedNetwork(path, latency_ms, seen.top1, seen.loss, seconds)

    def _evaluation(self, path: Sequence[int]) -> Evaluation:
        crew, job = self.crew, self.crew.work.job
        words = (self.training, self.recipe, job.seed, crew.device, crew.team)
        state = trained_alone(self.architecture(path), *words)
        _, held_out = scoring_batches(self.data, job.search)
        return evaluate(averaged_copy(state.network, crew.team), held_out, crew.team)


def _work(crew: Crew, case: Case) -> _Work:
    job = crew.work.job
    assert job.retrain is not None, "checked when the job was read"
    assert case.budget_ms is not None, "random networks have the budget of a search"
    _, weight = search_parts(crew)
    training = crew.loader(weight, job.retrain.batch_size, "random weights", is_retraining=True)
    goal, data = LatencyGoal(crew.table, case.budget_ms, crew.device), search_data(crew)
    count = _number(crew, data)
    paths = [tuple(path) for path in random_networks_at(goal, count, job.seed)]
    return _Work(crew, goal, data, training, job.retrain, paths)


def _number(crew: Crew, data: SearchData) -> int:
    """How many networks can be trained on as many images as the search sees; one or more."""
    search, retrain = crew.work.job.search, crew.work.job.retrain
    assert retrain is not None, "checked when the job was read"
    choices = [len(site.ops) for site in crew.space.sites]
    passes = search_cost(search, data.weight.steps, choices) / data.weight.steps
    return max(1, round(passes / retrain.epochs))


def _kept(crew: Crew, case: Case) -> KeptNetworks:
    return KeptNetworks(crew.storage, f"{case.folder}/random.json", FORMAT, case.key)


def _stored(crew: Crew, case: Case, paths: Sequence[tuple[int, ...]]) -> list[TrainedNetwork]:
    """The networks that were trained before; none if others are to be trained."""
    found = [TrainedNetwork(**from_values(one)) for one in _kept(crew, case).read()]
    return found if [one.path for one in found] == list(paths[: len(found)]) else []


def _store(crew: Crew, case: Case, done: Sequence[TrainedNetwork]) -> None:
    if crew.team.rank == 0:
        _kept(crew, case).write([to_values(one) for one in done])


def _report(work: _Work, case: Case, done: Sequence[TrainedNetwork]) -> None:
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
