"""What a job will do and whether it can: cases, budgets in milliseconds, what is done already.

Only what needs no torch, so that a finished job is recognised quickly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.hardware import Target
from cluster.runtimes import MeasurementError, present
from cluster.storage import Storage
from nas_core.architecture import Architecture, Model
from nas_core.latency import LatencyTable
from nas_core.settings import SearchSettings
from nas_core.space import SearchSpace
from orchestration.case_settings import CaseSettings
from orchestration.job import Job
from orchestration.keys import case_key, model_key, shipped_key, table_key, training_key
from orchestration.latency_tables import shipped_table
from orchestration.models import named_model
from orchestration.sources import DataFacts, describe
from orchestration.spec import SpecError

ORDER = ("reference", "search", "given", "baseline")
"""Kinds of cases, as they stand in tables."""


@dataclass(frozen=True)
class Case:
    """One network to make: searched within a budget, or one that is known beforehand."""

    name: str
    kind: str
    """One of ORDER: "reference" is the reference network of a target, the one to beat."""
    target: str
    budget: str | float | None
    """As the job file says it; None for all but a search."""
    budget_ms: float | None
    key: str
    table_key: str
    model: dict[str, Any] | None = None
    """JSON of a given architecture or a baseline."""

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
    models: tuple[Model | None, ...]
    """Per entry of `cases:`, the model that it names; None where it asks for a search."""
    targets: tuple[Target, ...]
    """Of the job, in its order, as they are measured: a stand-in is one."""
    table_keys: dict[str, str]
    """By target."""
    shipped: dict[str, LatencyTable]
    """By target, tables of those that are not measured."""


def make_plan(job: Job) -> Plan:
    """Look at the data, put the space together and find the models that are named.

    Raises:
        SpecError: the data is not there, the space cannot be built for it, a model is not for it,
            or a target that is not measured has no latencies of one of them.
    """
    data = describe(job.data)
    try:
        space = job.space.build(len(data.classes), data.channels, data.resolution)
    except ValueError as error:
        raise SpecError(f"space: {error}") from None
    _check_ranking(job, space)
    _check_updates(job, data)
    models = tuple(named_model(case, space, f"cases[{i}]") for i, case in enumerate(job.cases))
    targets = _present_targets(job)
    found = {target.name: shipped_table(target, space) for target in targets}
    shipped = {name: table for name, table in found.items() if table is not None}
    for i, (case, model) in enumerate(zip(job.cases, models, strict=True)):
        if model is not None and case.target in shipped:
            _check_covered(f"cases[{i}]", case, model, shipped[case.target])
    keys = {
        target.name: shipped_key(shipped[target.name])
        if target.name in shipped
        else _table_key(space, target, job)
        for target in targets
    }
    return Plan(job, data, space, models, targets, keys, shipped)


def _present_targets(job: Job) -> tuple[Target, ...]:
    """Targets of the job as they can be measured from here."""
    names = dict.fromkeys(case.target for case in job.cases)
    try:
        return tuple(present(job.target(name)) for name in names)
    except MeasurementError as error:
        raise SpecError(str(error)) from None


def _table_key(space: SearchSpace, target: Target, job: Job) -> str:
    try:
        return table_key(space, target, job.measure)
    except MeasurementError as error:  # its runtime is not installed
        raise SpecError(f"target '{target.name}': {error}") from None


def _check_ranking(job: Job, space: SearchSpace) -> None:
    count = job.search.ranking_networks
    if count > space.size():
        raise SpecError(
            f"search.ranking_networks is {count}; expected {space.size()} or fewer, which is how "
            f"many networks '{space.name}' has"
        )


def search_steps(job: Job, data: DataFacts) -> int:
    """Weight steps of an epoch of the search, about: classes are split each by itself."""
    images = data.count - data.test_count
    return -(-round(images * (1 - job.search.architecture_share)) // job.search.batch_size)


def _check_updates(job: Job, data: DataFacts) -> None:
    if all(case.kind != "search" for case in job.cases):
        return
    try:
        job.search.check_updates(search_steps(job, data))
    except ValueError as error:
        raise SpecError(f"search.{error}") from None


def _check_covered(place: str, case: CaseSettings, model: Model, table: LatencyTable) -> None:
    reason = "its table has rows for parts of the searched space alone"
    if isinstance(model, Architecture):
        try:
            table.latency_ms(model)
        except ValueError as error:
            reason = str(error).partition(";")[0]
        else:
            return
    raise SpecError(
        f"{place}.{case.setting}: nothing is measured on '{case.target}', and {reason}; "
        "name a target that is measured, e.g. mobile"
    )


def cases_of(plan: Plan, tables: dict[str, LatencyTable]) -> list[Case]:
    """Cases of a job, each target's reference network before its others.

    Searches on a target whose table is not there yet are left out.

    Raises:
        SpecError: a budget is outside the space's range on its target, or two cases would have the
            same name.
    """
    found: dict[str, Case] = {}
    for place, case in _all_cases(plan, tables):
        if case.name in found:
            raise SpecError(
                f"{place} makes a second '{case.name}', which names its folder; "
                "take one of them out, or name the file otherwise"
            )
        found[case.name] = case
    return list(found.values())


def _all_cases(plan: Plan, tables: dict[str, LatencyTable]) -> Iterator[tuple[str, Case]]:
    """Each case behind the place in the job file that asks for it."""
    if plan.job.retrain is not None:
        first = {case.target: i for i, case in reversed(list(enumerate(plan.job.cases)))}
    else:
        first = {}
    for i, settings in enumerate(plan.job.cases):
        if first.get(settings.target) == i:
            yield f"cases[{i}]", _reference(plan, settings.target)
        model = plan.models[i]
        if model is not None:
            yield f"cases[{i}].{settings.setting}", _named(plan, settings, model)
        elif settings.target in tables:
            yield from _searches(plan, i, tables[settings.target])


def _reference(plan: Plan, target: str) -> Case:
    table = plan.table_keys[target]
    key = training_key(plan.job, plan.data, plan.space, table)
    return Case(f"{target}-reference", "reference", target, None, None, key, table)


def _named(plan: Plan, settings: CaseSettings, model: Model) -> Case:
    table, values = plan.table_keys[settings.target], model.to_dict()
    key = model_key(plan.job, plan.data, plan.space, table, values)
    name = f"{settings.target}-{settings.model_name}"
    return Case(name, settings.kind, settings.target, None, None, key, table, values)


def _searches(plan: Plan, index: int, table: LatencyTable) -> Iterator[tuple[str, Case]]:
    settings = plan.job.cases[index]
    target, table_id = settings.target, plan.table_keys[settings.target]
    for number, budget in enumerate(settings.budgets_ms or ()):
        budget_ms = budget_in_ms(budget, table)
        place = f"cases[{index}].budgets_ms[{number}]"
        _check_feasible(place, budget, budget_ms, table)
        _check_objective(place, plan.job.search, budget_ms, table)
        key = case_key(plan.job, plan.data, plan.space, table_id, budget_ms)
        name = f"{target}-{budget_ms:.4g}ms"
        yield place, Case(name, "search", target, budget, budget_ms, key, table_id)


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


def _check_objective(
    place: str, settings: SearchSettings, budget_ms: float, table: LatencyTable
) -> None:
    if settings.objective_name != "mul_log":  # the only one that is not for all latencies
        return
    from nas_core.objective import check_goal

    try:
        check_goal(settings, table.range_ms()[0], budget_ms)
    except ValueError as error:
        raise SpecError(f"{place}: {error}") from None


def tolerance(budget_ms: float) -> float:
    """How far over its budget a measurement may lie: 2 %, 5 % below a millisecond."""
    return 0.05 if budget_ms < 1 else 0.02


def is_within(measured_ms: float, budget_ms: float) -> bool:
    """Whether a measurement is within its budget, as near as measuring can tell."""
    return measured_ms <= budget_ms * (1 + tolerance(budget_ms))


def over_budget(measured_ms: float | None, budget_ms: float | None, tries: int) -> str | None:
    """What to say of a network that was measured over its budget; None for all others."""
    if measured_ms is None or budget_ms is None or is_within(measured_ms, budget_ms):
        return None
    return (
        f"measured {measured_ms:.4g} ms, {measured_ms / budget_ms - 1:.0%} over the budget of "
        f"{budget_ms:.4g} ms, after {tries} tries; measure the table again on a calm machine, or "
        "ask for a little less"
    )


def is_done(case: Case, folder: Storage) -> bool:
    """Whether the job's storage holds the result of exactly this case."""
    place = f"{case.folder}/result.json"
    return folder.exists(place) and folder.read_json(place).get("key") == case.key


def plan_facts(plan: Plan, cases: Sequence[Case]) -> dict[str, Any]:
    """What a record of the job keeps of its plan."""
    return {
        "data": asdict(plan.data),
        "space_size": plan.space.size(),
        "tables": plan.table_keys,
        "cases": [asdict(case) for case in cases],
    }


def with_references(missing: list[Case]) -> list[tuple[Case, tuple[Case, ...]]]:
    """Cases to run, each with the reference networks that it trains in its worker group.

    A worker group takes some 15 s to start, so a reference network is trained in that of the first
    other case of its target, a search if there is one; by itself only where those are finished.
    """
    others = sorted(
        (case for case in missing if case.kind != "reference"),
        key=lambda case: ORDER.index(case.kind),
    )
    works: dict[str, tuple[Case, ...]] = {case.name: () for case in others}
    alone = []
    for reference in (case for case in missing if case.kind == "reference"):
        host = next((case for case in others if case.target == reference.target), None)
        if host is None:
            alone.append((reference, ()))
        else:
            works[host.name] = (reference,)
    return [(case, works[case.name]) for case in others] + alone
