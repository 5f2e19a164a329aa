"""Estimate of the time and cost of a job, from a few timed steps.

Accounts for the start-up of worker groups, for cases that run concurrently, and for phases that
run one after the other. The time of a phase is that of its busiest slot, whose worker group starts
once.
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
from orchestration.planning.case import Case, NamedCase, training_of
from orchestration.planning.plan import Plan, search_steps
from orchestration.planning.worker_layout import WorkerLayout
from orchestration.scheduling.order import Schedule, co_scheduled_groups
from orchestration.state.results_on_disk import is_found, is_searched

RAY_S = 8.0
"""Start and shutdown of a local Ray, measured on two cores."""


@dataclass(frozen=True)
class Timings:
    """Seconds of every part of a case, measured on this cluster."""

    start_s: float
    """Start and shutdown of a worker group for cases, images loaded, at full concurrency."""
    warmup_start_s: float
    """Start of the worker group that trains warm-ups."""
    warmup_step_s: float
    """Step of a warm-up in that group."""
    own_warmup_step_s: float
    """Step of a warm-up with the workers of one case."""
    search_step_s: float
    """Unit counted by `search_units`: a weight step with its share of an alpha update."""
    retrain_step_s: float
    measure_s: Mapping[str, float]
    """Lowering and measurement of a network, by target."""
    export_s: Mapping[str, float]
    """Export of a trained network and measurement of its program, by target."""
    model_step_s: Mapping[str, float]
    """Training step of each network named in the job, by the digest of its JSON."""
    waits: Mapping[str, float] = field(default_factory=dict)
    """Fraction of step time spent waiting for images, by phase."""
    reading_per_s: float | None = None
    """Approximate throughput of the readers of a case's workers, images per second; None if images
    are held in memory."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"format": TIMINGS_FORMAT, **asdict(self)}

    def step_s(self, case: Case) -> float:
        """Seconds per training step of the network of a case."""
        if not isinstance(case, NamedCase):
            return self.retrain_step_s
        return self.model_step_s.get(digest(case.model), self.retrain_step_s)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Timings | None:
        """The inverse of `to_dict`; None for the format of another version."""
        if values.get("format") != TIMINGS_FORMAT:
            return None
        return cls(**{name: value for name, value in values.items() if name != "format"})


@dataclass(frozen=True)
class CaseEstimate:
    """Estimated time and steps of one case."""

    seconds: float
    """Time in a worker group that is running."""
    search_steps: int
    """Steps of its search; 0 if it does not search."""
    retrain_steps: int
    """Steps of retraining, including those of co-scheduled networks."""


@dataclass(frozen=True)
class Feeding:
    """Throughput of one case that reads images from files while training, images per second."""

    reading: float
    """Throughput of the readers."""
    training: Mapping[str, float]
    """Throughput of training without waiting, by phase."""
    waits: Mapping[str, float]
    """Fraction of the timed steps that was spent waiting, by phase."""

    def waiting(self, phase: str) -> float:
        """Estimated fraction of a phase spent waiting for images."""
        return max(self.waits[phase], 1 - self.reading / self.training[phase])


@dataclass(frozen=True)
class Estimate:
    """Estimated time of a job up to its last network, without latency tables and MLflow."""

    seconds: float
    warmup_s: float
    """Time of all warm-ups, which run one after the other."""
    warmup_steps: int
    cases: Mapping[str, CaseEstimate]
    """Estimates by case name."""
    alone_s: float
    """Time of the job if each case trained its own warm-up and search."""
    workers: int
    """Workers per case."""
    at_once: int
    """Cases that run concurrently."""
    nodes: int
    price_per_hour: float | None
    feeding: Feeding | None = None
    """None if images are held in memory."""

    def node_hours(self, seconds: float) -> float:
        """Node hours of the whole cluster for a time."""
        return self.nodes * seconds / 3600

    def case_hours(self, name: str) -> float:
        """Node hours of one case: its share of the nodes while it runs."""
        return self.node_hours(self.cases[name].seconds) / self.at_once

    def price(self, node_hours: float) -> float | None:
        """Price of node hours; None if the job gives no price."""
        return None if self.price_per_hour is None else node_hours * self.price_per_hour


def estimate(
    plan: Plan, order: Schedule, timings: Timings, layout: WorkerLayout, nodes: int, folder: Storage
) -> Estimate:
    """Estimate the time of a schedule.

    Args:
        plan: of the job.
        order: cases that are left to run.
        timings: of the job's steps.
        layout: workers per case, and number of concurrent cases.
        nodes: number of nodes of the cluster.
        folder: of the job; shows what is done of cases in progress.
    """
    first, followers = (
        {
            case.name: _case(plan, case, behind, timings, folder, follows=follows)
            for case, behind in co_scheduled_groups(wave, layout.at_once)
        }
        for wave, follows in ((order.first, False), (order.followers, True))
    )
    estimates = first | followers
    warmup_steps = plan.job.search.warmup_epochs * search_steps(plan.job, plan.data)
    warmup_s = timings.warmup_start_s + warmup_steps * timings.warmup_step_s
    number, fixed_s = len(order.warmups), RAY_S if estimates else 0.0
    wave_s = [
        timings.start_s + makespan([case.seconds for case in wave.values()], layout.at_once)
        for wave in (first, followers)
        if wave
    ]
    alone = [
        _alone(plan, case, estimates[case.name], timings)
        for case in order.cases
        if case.name in estimates
    ]
    return Estimate(
        seconds=fixed_s + number * warmup_s + sum(wave_s),
        warmup_s=number * warmup_s,
        warmup_steps=number * warmup_steps,
        cases=estimates,
        alone_s=fixed_s + (timings.start_s + makespan(alone, layout.at_once) if alone else 0.0),
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


def makespan(seconds: Iterable[float], at_once: int) -> float:
    """Time of tasks that are started in order, at most `at_once` at a time."""
    free = [0.0] * max(1, at_once)
    for task_s in seconds:
        first = free.index(min(free))
        free[first] += task_s
    return max(free)


def training_steps(plan: Plan) -> int:
    """Number of steps of a retraining."""
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
    seconds = _searched_s(job, searched * timings.search_step_s)
    trained = {training_of(item): item for item in (case, *behind)}
    seconds += sum(steps * timings.step_s(item) for item in trained.values())
    for item in (case, *behind):
        if item.kind != "reference" and not is_found(item, folder):
            seconds += timings.measure_s.get(item.target, 0.0)
        if steps:
            seconds += timings.export_s.get(item.target, 0.0)
    if case.kind == "search":
        seconds += job.search.ranking_networks * steps * timings.retrain_step_s
    if case.kind == "random":
        seconds += _random_steps(plan) * timings.retrain_step_s
    return CaseEstimate(seconds, searched, len(trained) * steps)


def _searched_s(job: Job, seconds: float) -> float:
    hours = job.search.max_hours
    return seconds if hours is None else min(seconds, 3600 * hours)


def _random_steps(plan: Plan) -> float:
    """Approximate training steps of the random networks, which cost as much as a search."""
    from nas_core.schedule import search_cost

    search, retrain = plan.job.search, plan.job.retrain
    assert retrain is not None, "checked when the job was read"
    choices = [len(site.ops) for site in plan.space.sites]
    cost = search_cost(search, search_steps(plan.job, plan.data), choices)
    return cost * search.batch_size / retrain.batch_size


def search_units(plan: Plan) -> int:
    """Units of work of a search after its warm-up: weight steps, or scored networks.

    For strategies that train networks alone, the training steps of all of them.
    """
    search, steps = plan.job.search, search_steps(plan.job, plan.data)
    if search.strategy == "rl_trials":
        return search.total_epochs * steps
    if search.strategy in WITHOUT_HOLD:
        return search.updates(steps)
    return search.epochs * steps


def _alone(plan: Plan, case: Case, shared: CaseEstimate, timings: Timings) -> float:
    """Seconds of a case if it shared neither warm-up nor search."""
    if case.kind != "search":
        return shared.seconds
    steps = plan.job.search.warmup_epochs * search_steps(plan.job, plan.data)
    missing = search_units(plan) - shared.search_steps
    own_s = steps * timings.own_warmup_step_s if case.warmup_key else 0.0
    return shared.seconds + own_s + missing * timings.search_step_s
