"""A plan as text: the work of a job, and which parts of it are done already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cluster.hardware import Target
from cluster.storage import Storage
from nas_core.latency import LatencyTable
from nas_core.search_settings import SearchSettings
from nas_core.space import SearchSpace
from orchestration.config.job import Job
from orchestration.data.info import is_streamed
from orchestration.planning.budgets import DEFAULT_BUDGETS, span_of
from orchestration.planning.case import BudgetCase, Case, SearchCase
from orchestration.planning.plan import Plan, search_steps
from orchestration.reports.text import duration
from orchestration.scheduling.estimate import Estimate, Feeding, training_steps
from orchestration.state.results_on_disk import why
from orchestration.state.snapshot import JobSnapshot, read_snapshot


def plan_lines(
    plan: Plan,
    tables: dict[str, LatencyTable],
    cases: list[Case],
    folder: Storage,
    workers: str,
    expected: Estimate | None = None,
    *,
    snapshot: JobSnapshot | None = None,
) -> list[str]:
    """Lines that describe the plan.

    Args:
        plan: of the job.
        tables: latency tables that are known, by target.
        cases: of the job.
        folder: of the job; shows which cases are done.
        workers: description of the workers of a case.
        expected: estimated time and cost, if steps were timed.
        snapshot: the state of its cases; None: it is read here.
    """
    job, data, space = plan.job, plan.data, plan.space
    snapshot = read_snapshot(folder, job.asha) if snapshot is None else snapshot
    test = data.test_count
    size = f"{data.channels}x{data.resolution}x{data.resolution}"
    lines = [
        f"job      {job.name}, {_seeds(job)}, storage {job.storage}",
        f"data     {job.data.source}: {data.count} images of {size}, {len(data.classes)} classes; "
        f"about {data.count - test} for training, {test} for the test; {_where_held(plan)}",
        *(f"WARNING  {note}" for note in plan.notes),
        f"space    {space.name}: {len(space.sites)} sites, {space.size():,} networks, "
        f"supernet {_supernet_params(space) / 1e6:.2f} M parameters",
    ]
    lines += [_target_line(target, tables.get(target.name)) for target in plan.targets]
    states = {name: f"done, as {old}" for name, old in snapshot.renamed(cases).items()}
    early = snapshot.stopped_early(cases)
    states |= {name: f"stopped early {reason}" for name, reason in early.items()}
    texts = dict[str, str]()
    for case in cases:
        state = states.get(case.name) or why(case, folder, snapshot)
        parts = [_asked(case), *_feasible(case, tables), state]
        texts[case.name] = "; ".join([*parts, *_effort(case, expected)])
    lines += [*_case_lines(cases, texts), *_later(plan, tables)]
    lines += [f"workers  {workers}", *_stage_lines(plan)]
    if expected is not None:
        lines += [*feeding_lines(expected.feeding), *time_lines(expected)]
    return lines


def _case_lines(cases: Sequence[Case], texts: Mapping[str, str]) -> Iterator[str]:
    """A line for each case. Cases of further seeds get one only if their text differs."""
    first, repeated = dict[str, str](), 0
    for case in cases:
        text = texts[case.name]
        if first.setdefault(case.name_of_all_seeds, text) == text and case.seed != cases[0].seed:
            repeated += 1
        else:
            yield f"case     {case.name}: {text}"
    if repeated:
        yield f"case     {repeated} more of the other seeds: as above"


WORTH_A_WARNING = 0.1
"""Share of a phase spent waiting for images that is reported as a warning."""


def feeding_lines(feeding: Feeding | None) -> Iterator[str]:
    """Throughput of reading and of training, and a warning if training would wait for images."""
    if feeding is None:
        return
    taken = [f"{phase} takes {speed:,.0f}" for phase, speed in feeding.training.items()]
    yield f"reading  about {feeding.reading:,.0f} images a second for a case; {', '.join(taken)}"
    for phase in feeding.training:
        if (share := feeding.waiting(phase)) > WORTH_A_WARNING:
            yield (
                f"WARNING  {phase} would wait for images {share:.0%} of the time: give reading "
                "more cores (data.stream.readers, or nodes with more cores), or lower "
                "data.resolution"
            )


def _where_held(plan: Plan) -> str:
    data, stream = plan.job.data, plan.job.data.stream
    if is_streamed(data, plan.data):
        return (
            f"streamed in {stream.lanes} lanes, since they do not fit into {data.memory_gib:g} GiB"
        )
    return "held in memory"


def _feasible(case: Case, tables: dict[str, LatencyTable]) -> Iterator[str]:
    """Position of the budget within the latency range of the space."""
    if isinstance(case, BudgetCase):
        yield span_of(tables[case.target], case.budget_ms).text()


def _effort(case: Case, expected: Estimate | None) -> Iterator[str]:
    """Workers, steps, time and cost of a case that is not done."""
    if expected is None or case.name not in expected.cases:
        return
    effort = expected.cases[case.name]
    parts = ["1 worker" if expected.workers == 1 else f"{expected.workers} workers"]
    parts += [f"{effort.search_steps} steps of search"] if effort.search_steps else []
    parts += [f"{effort.retrain_steps} of retraining"] if effort.retrain_steps else []
    cost = _cost(expected, expected.case_hours(case.name))
    yield ", ".join([*parts, f"about {duration(effort.seconds)}", cost])


def _cost(expected: Estimate, node_hours: float) -> str:
    """Node hours, and their price if the job gives a price per hour."""
    price = expected.price(node_hours)
    return f"{node_hours:.2g} node hours" + ("" if price is None else f" for {price:.2f}")


def time_lines(expected: Estimate) -> Iterator[str]:
    """Estimated time and cost, with and without sharing of warm-ups and searches."""
    cost = _cost(expected, expected.node_hours(expected.seconds))
    nodes = "1 node" if expected.nodes == 1 else f"{expected.nodes} nodes"
    price = "" if expected.price_per_hour is None else f" at {expected.price_per_hour:g} an hour"
    steps = ""
    if expected.warmup_steps:
        steps = f", {duration(expected.warmup_s)} for {expected.warmup_steps} steps of warm-up"
    yield f"time     about {duration(expected.seconds)}{steps}; {cost} ({nodes}{price})"
    alone = _cost(expected, expected.node_hours(expected.alone_s))
    yield (
        f"time     about {duration(expected.alone_s)} if every case trained a warm-up and a search "
        f"of its own; {alone}"
    )


def _later(plan: Plan, tables: dict[str, LatencyTable]) -> Iterator[str]:
    """Searches whose budgets are not known in milliseconds yet."""
    entries = [
        case for case in plan.job.cases if case.target not in tables and case.kind == "search"
    ]
    wanted = [
        f"{case.target} {budget}"
        for case in entries
        for budget in case.budgets_ms or DEFAULT_BUDGETS
    ]
    if wanted:
        yield f"cases    {', '.join(wanted)}; in milliseconds once the table is measured"


def _target_line(target: Target, table: LatencyTable | None) -> str:
    threads = "1 thread" if target.threads == 1 else f"{target.threads} threads"
    text = f"target   {target.hardware()}"
    if not target.table:  # a table file has its own threads and batch size
        text += f", {threads}, batch {target.batch_size}"
    if target.stand_in:
        text += f"; this host stands in for '{target.name}'"
    if table is None:
        return f"{text}; latency table to be measured"
    fastest, slowest = table.range_ms()
    where = "in storage" if target.is_measured else "ships with the project, nothing is measured"
    where = f"from {target.table}, nothing is measured" if target.table else where
    return (
        f"{text}; latency table {where}: {fastest:.4g} to {slowest:.4g} ms, "
        f"reference {table.reference_ms:.4g} ms"
    )


def _seeds(job: Job) -> str:
    numbers = ", ".join(str(seed) for seed in job.all_seeds)
    return f"{'seed' if len(job.all_seeds) == 1 else 'seeds'} {numbers}"


def _asked(case: Case) -> str:
    if not isinstance(case, BudgetCase):
        return WITHOUT_SEARCH[case.kind]
    percent = f" ({case.budget} of the reference)" if isinstance(case.budget, str) else ""
    text = f"budget {case.budget_ms:.4g} ms{percent}"
    if not isinstance(case, SearchCase):
        return f"{text}, the best of random networks"
    if case.search_key is not None and not case.hosts_search:
        text += f", from the search for {case.search_ms:.4g} ms"
    return text


WITHOUT_SEARCH = {
    "reference": "the network to beat",
    "baseline": "a baseline, no search",
    "given": "a given architecture, no search",
}
"""Description of a case without a budget, by kind."""


def _stage_lines(plan: Plan) -> Iterator[str]:
    if any(case.kind == "search" for case in plan.job.cases):
        yield from _search_lines(plan.job.search, search_steps(plan.job, plan.data))
    if plan.job.controls:
        yield (
            "controls for each search: random networks of its latency, trained at its cost, and "
            "the MobileNetV2 of the nearest latency if that is measured"
        )
    retrain = plan.job.retrain
    if retrain is None:
        yield "retrain  none: the job stops after the search"
    else:
        steps = training_steps(plan) // retrain.epochs
        yield f"retrain  {retrain.epochs} epochs of {steps} steps, batch {retrain.batch_size}"


def _search_lines(search: SearchSettings, steps: int) -> Iterator[str]:
    yield (
        f"search   {search.strategy}, {search.objective_name}: {search.warmup_epochs} warm-up + "
        f"{search.epochs} epochs of {steps} steps, batch {search.batch_size}; "
        f"{search.updates(steps)} updates"
    )
    if search.ranking_networks:
        yield (
            f"ranking  {search.ranking_networks} networks per search are trained alone to evaluate "
            "how well the supernet ranks networks"
        )


def _supernet_params(space: SearchSpace) -> int:
    from nas_core.supernet import num_supernet_params

    return num_supernet_params(space)
