"""What a job will do and whether it can: cases, budgets in milliseconds, what is done already.

Only what needs no torch, so that a finished job is recognised quickly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cluster.hardware import TARGETS, Target
from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable
from nas_core.space import SearchSpace
from orchestration.job import Job
from orchestration.keys import case_key, table_key, training_key
from orchestration.sources import DataFacts, describe
from orchestration.spec import SpecError


@dataclass(frozen=True)
class Case:
    """One network to make: searched within a budget, or the reference network of a target."""

    name: str
    kind: str
    """"search" or "reference"."""
    target: str
    budget: str | float | None
    """As the job file says it."""
    budget_ms: float | None
    key: str
    table_key: str

    @property
    def folder(self) -> str:
        """Key of the case's folder in the job's storage."""
        return f"cases/{self.name}"


@dataclass(frozen=True)
class Plan:
    """A checked job and what follows from it."""

    job: Job
    data: DataFacts
    space: SearchSpace
    table_keys: dict[str, str]
    """By target."""

    @property
    def targets(self) -> list[Target]:
        """Targets of the job, in its order."""
        return [TARGETS[name] for name in self.table_keys]


def make_plan(job: Job) -> Plan:
    """Look at the data and put the space together.

    Raises:
        SpecError: the data is not there, or the space cannot be built for it.
    """
    data = describe(job.data)
    try:
        space = job.space.build(len(data.classes), data.channels, data.resolution)
    except ValueError as error:
        raise SpecError(f"space: {error}") from None
    keys = {case.target: table_key(space, TARGETS[case.target], job) for case in job.cases}
    return Plan(job, data, space, keys)


def stored_table(storage: Storage, key: str) -> LatencyTable | None:
    """The latency table that is in storage, or None.

    Raises:
        SpecError: it is there but cannot be read.
    """
    place = f"tables/{key}.json"
    if not storage.exists(place):
        return None
    try:
        return LatencyTable.from_dict(storage.read_json(place))
    except ValueError as error:
        raise SpecError(f"{storage.path(place)}: {error}; remove it to measure again") from None


def cases_of(plan: Plan, tables: dict[str, LatencyTable]) -> list[Case]:
    """All cases of a job, each target's reference network first.

    Raises:
        SpecError: a budget is outside the space's range on its target.
    """
    return [case for i in range(len(plan.job.cases)) for case in _cases_at(plan, i, tables)]


def _cases_at(plan: Plan, index: int, tables: dict[str, LatencyTable]) -> Iterator[Case]:
    settings = plan.job.cases[index]
    target, table = settings.target, tables[settings.target]
    table_id = plan.table_keys[target]
    if plan.job.retrain is not None:
        key = training_key(plan.job, plan.data, plan.space, table_id)
        yield Case(f"{target}-reference", "reference", target, None, None, key, table_id)
    for number, budget in enumerate(settings.budgets_ms):
        budget_ms = budget_in_ms(budget, table)
        _check_feasible(f"cases[{index}].budgets_ms[{number}]", budget, budget_ms, table)
        key = case_key(plan.job, plan.data, plan.space, table_id, budget_ms)
        name = f"{target}-{budget_ms:.4g}ms"
        yield Case(name, "search", target, budget, budget_ms, key, table_id)


def budget_in_ms(budget: str | float, table: LatencyTable) -> float:
    """Milliseconds, from milliseconds or from a percentage of the reference network's latency."""
    if isinstance(budget, str):
        assert table.reference_ms is not None, "the measure stage measures the reference network"
        return float(budget.strip().removesuffix("%")) / 100 * table.reference_ms
    return float(budget)


def _check_feasible(place: str, budget: str | float, budget_ms: float, table: LatencyTable) -> None:
    fastest, slowest = table.range_ms()
    if fastest <= budget_ms <= slowest:
        return
    asked = f"{budget} = {budget_ms:.4g} ms" if isinstance(budget, str) else f"{budget_ms:g} ms"
    reference = table.reference_ms or table.latency_ms(Architecture.reference(table.space))
    raise SpecError(
        f"{place} is {asked}; networks of '{table.space.name}' take from {fastest:.4g} to "
        f"{slowest:.4g} ms on '{table.hardware}' ({fastest / reference:.0%} to "
        f"{slowest / reference:.0%} of the reference network); name a budget between them"
    )


def tolerance(budget_ms: float) -> float:
    """How far over its budget a measurement may lie: 2 %, 5 % below a millisecond."""
    return 0.05 if budget_ms < 1 else 0.02


def is_done(case: Case, folder: Storage) -> bool:
    """Whether the job's storage holds the result of exactly this case."""
    place = f"{case.folder}/result.json"
    return folder.exists(place) and folder.read_json(place).get("key") == case.key


def plan_lines(
    plan: Plan, tables: dict[str, LatencyTable], cases: list[Case], done: set[str], workers: str
) -> list[str]:
    """The plan in words."""
    job, data, space = plan.job, plan.data, plan.space
    test = round(job.data.test_share * data.count)
    size = f"{data.channels}x{data.resolution}x{data.resolution}"
    lines = [
        f"job      {job.name}, seed {job.seed}, storage {job.storage}",
        f"data     {job.data.source}: {data.count} images of {size}, {len(data.classes)} classes; "
        f"about {data.count - test} for training, {test} for the test",
        f"space    {space.name}: {len(space.sites)} sites, {space.size():,} networks, "
        f"supernet {_supernet_params(space) / 1e6:.2f} M parameters",
    ]
    lines += [_target_line(target, tables.get(target.name)) for target in plan.targets]
    lines += [_case_line(case, case.name in done) for case in cases]
    if not cases:
        wanted = [f"{case.target} {b}" for case in job.cases for b in case.budgets_ms]
        lines.append(f"cases    {', '.join(wanted)}; in milliseconds once the table is measured")
    return [*lines, f"workers  {workers}", *_stage_lines(plan, data.count - test)]


def _target_line(target: Target, table: LatencyTable | None) -> str:
    words = f"target   {target.hardware()}, {target.threads} thread, batch {target.batch_size}"
    if target.stand_in:
        words += f"; this host stands in for '{target.name}'"
    if table is None:
        return f"{words}; latency table to be measured"
    fastest, slowest = table.range_ms()
    return (
        f"{words}; latency table in storage: {fastest:.4g} to {slowest:.4g} ms, "
        f"reference {table.reference_ms:.4g} ms"
    )


def _case_line(case: Case, is_finished: bool) -> str:
    state = "done" if is_finished else "to do"
    if case.budget_ms is None:
        return f"case     {case.name}: the network to beat; {state}"
    asked = f" ({case.budget} of the reference)" if isinstance(case.budget, str) else ""
    return f"case     {case.name}: budget {case.budget_ms:.4g} ms{asked}; {state}"


def _stage_lines(plan: Plan, images: int) -> Iterator[str]:
    search, retrain = plan.job.search, plan.job.retrain
    steps = -(-round(images * (1 - search.architecture_share)) // search.batch_size)
    yield (
        f"search   {search.strategy}, {search.objective}: {search.warmup_epochs} warm-up + "
        f"{search.epochs} epochs of {steps} steps, batch {search.batch_size}"
    )
    if retrain is None:
        yield "retrain  no: stops after the derived architecture"
    else:
        steps = -(-images // retrain.batch_size)
        yield f"retrain  {retrain.epochs} epochs of {steps} steps, batch {retrain.batch_size}"


def _supernet_params(space: SearchSpace) -> int:
    from nas_core.supernet import num_supernet_params

    return num_supernet_params(space)


def plan_facts(plan: Plan, cases: list[Case]) -> dict[str, Any]:
    """What a record of the job keeps of its plan."""
    return {
        "data": asdict(plan.data),
        "space_size": plan.space.size(),
        "tables": plan.table_keys,
        "cases": [asdict(case) for case in cases],
    }
