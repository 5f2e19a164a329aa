"""How long a job will take, and what it will cost, from a few steps that were timed.

Every worker group takes a while to start, cases run beside each other, waves one after the other:
the time of a job is that of the longest lane.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.storage import Storage
from nas_core.search_settings import WITHOUT_HOLD
from orchestration.config.digest import digest
from orchestration.config.job import Job
from orchestration.config.storage_layout import TIMINGS_FORMAT
from orchestration.planning.cases import Case, NamedCase, training_of
from orchestration.planning.plan import Plan, search_steps
from orchestration.planning.worker_layout import WorkerLayout
from orchestration.scheduling.order import Schedule, co_scheduled_groups
from orchestration.state.results_on_disk import is_found, is_searched

RAY_S = 8.0
"""Start and end of a Ray of one's own: seen on two cores."""


@dataclass(frozen=True)
class Timings:
    """Seconds of everything that a case is made of, on this cluster."""

    start_s: float
    """Start and end of the worker group of a case, as many at once as run at once; images in."""
    warmup_start_s: float
    """Of the group that trains warm-ups."""
    warmup_step_s: float
    """A step of a warm-up by that group."""
    own_warmup_step_s: float
    """The same by the workers of one case."""
    search_step_s: float
    """What `search_units` counts: a weight step of a search, with its part of an update."""
    retrain_step_s: float
    measure_s: Mapping[str, float]
    """Lowering and measuring a network, by target."""
    export_s: Mapping[str, float]
    """Files of a trained network, its program for the target measured, by target."""
    model_step_s: Mapping[str, float]
    """A training step of networks that the job names, by digest of their JSON."""
    waits: Mapping[str, float] = field(default_factory=dict)
    """By phase, which part of its steps is waiting for images."""
    reading_per_s: float | None = None
    """Images that the readers of a case's workers make ready in a second, about; None where images
    are in memory."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"format": TIMINGS_FORMAT, **asdict(self)}

    def step_s(self, case: Case) -> float:
        """Of training the network of a case."""
        if not isinstance(case, NamedCase):
            return self.retrain_step_s
        return self.model_step_s.get(digest(case.model), self.retrain_step_s)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Timings | None:
        """The inverse; None for what an earlier version has written."""
        if values.get("format") != TIMINGS_FORMAT:
            return None
        return cls(**{name: value for name, value in values.items() if name != "format"})


@dataclass(frozen=True)
class CaseEstimate:
    """What one case will take."""

    seconds: float
    search_steps: int
    """0 where it does not search."""
    retrain_steps: int
    """Those of the networks behind it included."""


@dataclass(frozen=True)
class Feeding:
    """Images a second of one case, where they are read from files while it trains."""

    reading: float
    """That its readers make ready."""
    training: Mapping[str, float]
    """By phase, that training takes where it waits for none."""
    waits: Mapping[str, float]
    """By phase, which part of the steps that were timed was waiting."""

    def waiting(self, phase: str) -> float:
        """Which part of a phase will be waiting, about."""
        return max(self.waits[phase], 1 - self.reading / self.training[phase])


@dataclass(frozen=True)
class Estimate:
    """What a job will take until its last network is there; tables and MLflow are not counted."""

    seconds: float
    warmup_s: float
    """All warm-ups, behind each other."""
    warmup_steps: int
    cases: Mapping[str, CaseEstimate]
    """By name."""
    alone_s: float
    """The job, if each case trained a warm-up and a search of its own."""
    workers: int
    """Of a case."""
    at_once: int
    """Cases that run beside each other."""
    nodes: int
    price_per_hour: float | None
    feeding: Feeding | None = None
    """None where images are in memory."""

    def node_hours(self, seconds: float) -> float:
        """Of all nodes, for so long."""
        return self.nodes * seconds / 3600

    def case_hours(self, name: str) -> float:
        """Node hours of one case: its part of the nodes while it runs."""
        return self.node_hours(self.cases[name].seconds) / self.at_once

    def price(self, node_hours: float) -> float | None:
        """Of node hours; None where the job does not say what a node costs."""
        return None if self.price_per_hour is None else node_hours * self.price_per_hour


def estimate(
    plan: Plan, order: Schedule, timings: Timings, layout: WorkerLayout, nodes: int, folder: Storage
) -> Estimate:
    """What the waves of a job will take.

    Args:
        plan: of the job.
        order: what is to be done.
        timings: of its steps.
        layout: of a case, and how many cases run at once.
        nodes: of the cluster.
        folder: the job's; tells what is there of cases that were begun.
    """
    first, followers = (
        {
            case.name: _case(plan, case, behind, timings, folder, follows=follows)
            for case, behind in co_scheduled_groups(wave, layout.at_once)
        }
        for wave, follows in ((order.first, False), (order.followers, True))
    )
    found = first | followers
    warmup_steps = plan.job.search.warmup_epochs * search_steps(plan.job, plan.data)
    warmup_s = timings.warmup_start_s + warmup_steps * timings.warmup_step_s
    number, fixed_s = len(order.warmups), RAY_S if found else 0.0
    lanes = [
        longest_lane([one.seconds for one in wave.values()], layout.at_once)
        for wave in (first, followers)
    ]
    alone = [
        _alone(plan, one, found[one.name], timings) for one in order.cases if one.name in found
    ]
    return Estimate(
        seconds=fixed_s + number * warmup_s + sum(lanes),
        warmup_s=number * warmup_s,
        warmup_steps=number * warmup_steps,
        cases=found,
        alone_s=fixed_s + longest_lane(alone, layout.at_once),
        workers=layout.workers,
        at_once=layout.at_once,
        nodes=nodes,
        price_per_hour=plan.job.cluster.price_per_hour,
        feeding=_feeding(plan.job, timings),
    )


def _feeding(job: Job, timings: Timings) -> Feeding | None:
    if timings.reading_per_s is None:
        return None
    batches = {"search": (job.search.batch_size, timings.search_step_s)}
    if job.retrain is not None:
        batches["retrain"] = (job.retrain.batch_size, timings.retrain_step_s)
    training = {
        phase: size / (step_s * (1 - min(0.99, timings.waits[phase])))
        for phase, (size, step_s) in batches.items()
        if step_s > 0
    }
    return Feeding(timings.reading_per_s, training, timings.waits)


def longest_lane(seconds: Iterable[float], lanes: int) -> float:
    """Time of works that are taken in their order, so many at once."""
    free = [0.0] * max(1, lanes)
    for one in seconds:
        first = free.index(min(free))
        free[first] += one
    return max(free)


def training_steps(plan: Plan) -> int:
    """Steps of a retraining."""
    retrain, images = plan.job.retrain, plan.data.count - plan.data.test_count
    return 0 if retrain is None else retrain.epochs * -(-images // retrain.batch_size)


def _case(
    plan: Plan,
    case: Case,
    behind: Sequence[Case],
    timings: Timings,
    folder: Storage,
    *,
    follows: bool,
) -> CaseEstimate:
    job, steps = plan.job, training_steps(plan)
    is_there = follows or is_searched(case, folder)
    searched = search_units(plan) if case.kind == "search" and not is_there else 0
    seconds = timings.start_s + _searched_s(job, searched * timings.search_step_s)
    trained = {training_of(one): one for one in (case, *behind)}
    seconds += sum(steps * timings.step_s(one) for one in trained.values())
    for one in (case, *behind):
        if one.kind != "reference" and not is_found(one, folder):
            seconds += timings.measure_s.get(one.target, 0.0)
        if steps:
            seconds += timings.export_s.get(one.target, 0.0)
    if case.kind == "search":
        seconds += job.search.ranking_networks * steps * timings.retrain_step_s
    if case.kind == "random":
        seconds += _random_steps(plan) * timings.retrain_step_s
    return CaseEstimate(seconds, searched, len(trained) * steps)


def _searched_s(job: Job, seconds: float) -> float:
    hours = job.search.max_hours
    return seconds if hours is None else min(seconds, 3600 * hours)


def _random_steps(plan: Plan) -> float:
    """Training steps of random networks at the cost of a search, about."""
    from nas_core.schedule import search_cost

    search, retrain = plan.job.search, plan.job.retrain
    assert retrain is not None, "checked when the job was read"
    choices = [len(site.ops) for site in plan.space.sites]
    cost = search_cost(search, search_steps(plan.job, plan.data), choices)
    return cost * search.batch_size / retrain.batch_size


def search_units(plan: Plan) -> int:
    """What a search is made of behind its warm-up: weight steps; networks, where those are scored.

    Where networks are trained alone, the steps of all of them.
    """
    search, steps = plan.job.search, search_steps(plan.job, plan.data)
    if search.strategy == "rl_trials":
        return search.total_epochs * steps
    if search.strategy in WITHOUT_HOLD:
        return search.updates(steps)
    return search.epochs * steps


def _alone(plan: Plan, case: Case, shared: CaseEstimate, timings: Timings) -> float:
    """Seconds of a case that shares nothing."""
    if case.kind != "search":
        return shared.seconds
    steps = plan.job.search.warmup_epochs * search_steps(plan.job, plan.data)
    missing = search_units(plan) - shared.search_steps
    own_s = steps * timings.own_warmup_step_s if case.warmup_key else 0.0
    return shared.seconds + own_s + missing * timings.search_step_s
