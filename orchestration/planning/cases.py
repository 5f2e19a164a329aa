"""Cases of a job: the networks that it makes, with their content keys.

Needs no torch, so that a finished job is recognised quickly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from nas_core.architecture import Model
from nas_core.latency import LatencyTable
from orchestration.config.cases import CaseSettings
from orchestration.config.digest import digest
from orchestration.config.loading import SpecError
from orchestration.planning.budgets import (
    budget_in_ms,
    check_feasible,
    check_objective,
    default_budgets,
    middle_budget,
)
from orchestration.planning.case import (
    BaselineCase,
    Case,
    GivenCase,
    NamedCase,
    RandomCase,
    ReferenceCase,
    SearchCase,
    WarmUpCase,
    seed_end,
)
from orchestration.planning.content_keys import (
    Parts,
    model_parts,
    random_parts,
    search_key,
    search_parts,
    training_parts,
    warmup_key,
)
from orchestration.planning.plan import Plan


def warmup_case(key: str, seed: int) -> WarmUpCase:
    """A warm-up, as something to run by itself."""
    return WarmUpCase(name=f"warm-up{seed_end(seed)}", key=key, seed=seed)


def cases_of(plan: Plan, tables: dict[str, LatencyTable]) -> list[Case]:
    """Cases of a job, each target's reference network before its others.

    Searches on a target whose table is not there yet are left out.

    Raises:
        SpecError: a budget is outside the space's range on its target, or two cases would have the
            same name.
    """
    cases: dict[str, Case] = {}
    for seed in plan.job.all_seeds:
        for setting, case in _all_cases(replace(plan, job=plan.job.with_seed(seed)), tables):
            if case.name in cases:
                raise SpecError(
                    f"{setting} makes a second '{case.name}', which names its folder; "
                    "take one of them out, or name the file otherwise"
                )
            cases[case.name] = case
    return list(cases.values())


def _all_cases(plan: Plan, tables: dict[str, LatencyTable]) -> Iterator[tuple[str, Case]]:
    """(path in the job file, case) of every case of one seed."""
    if plan.job.retrain is not None:
        first = {case.target: i for i, case in reversed(list(enumerate(plan.job.cases)))}
    else:
        first = {}
    for i, settings in enumerate(plan.job.cases):
        if first.get(settings.target) == i:
            yield f"cases[{i}]", _reference(plan, settings.target)
        model = plan.models[i]
        if model is not None:
            yield f"cases[{i}].{settings.setting}", named_case(plan, settings, model)
        elif settings.target in tables:
            yield from _searches(plan, i, tables[settings.target])


def _reference(plan: Plan, target: str) -> ReferenceCase:
    table = plan.table_keys[target]
    parts = training_parts(plan.job, plan.data, plan.space, table)
    return _case(ReferenceCase, plan, f"{target}-reference", target, parts)


def named_case(plan: Plan, settings: CaseSettings, model: Model) -> NamedCase:
    """Case of a network that is known in advance."""
    table, values = plan.table_keys[settings.target], model.to_dict()
    parts = model_parts(plan.job, plan.data, plan.space, table, values)
    name = f"{settings.target}-{settings.model_name}"
    kind = GivenCase if settings.kind == "given" else BaselineCase
    return _case(kind, plan, name, settings.target, parts, model=values)


Kind = TypeVar("Kind", bound=Case)


def _case(kind: type[Kind], plan: Plan, name: str, target: str, parts: Parts, **own: Any) -> Kind:
    """A case of a kind; `own` are the fields that only this kind has."""
    return kind(
        name=f"{name}{seed_end(plan.job.seed)}",
        target=target,
        key=digest(dict(parts)),
        table_key=plan.table_keys[target],
        seed=plan.job.seed,
        parts=parts,
        **own,
    )


def _searches(plan: Plan, index: int, table: LatencyTable) -> Iterator[tuple[str, Case]]:
    settings, job = plan.job.cases[index], plan.job
    middle = middle_budget([ms for case in job.cases for ms in _in_ms(case, settings, table)])
    warmup = warmup_key(job, plan.data, plan.space) if job.search.has_warmup else None
    budgets = settings.budgets_ms or default_budgets(table)
    for number, budget in enumerate(budgets):
        setting, budget_ms = f"cases[{index}].budgets_ms[{number}]", budget_in_ms(budget, table)
        check_feasible(setting, budget, budget_ms, table)
        check_objective(setting, job.search, budget_ms, table)
        search_ms = middle if job.search.share == "target" else budget_ms
        table_id = plan.table_keys[settings.target]
        parts = search_parts(job, plan.data, plan.space, table_id, budget_ms, search_ms)
        yield (
            setting,
            _case(
                SearchCase,
                plan,
                f"{settings.target}-{budget_ms:.4g}ms",
                settings.target,
                parts,
                budget=budget,
                budget_ms=budget_ms,
                search_ms=search_ms,
                search_key=search_key(parts) if job.search.share == "target" else None,
                warmup_key=warmup,
            ),
        )
        if job.controls:
            yield setting, _random(plan, settings.target, budget, budget_ms)


def _random(plan: Plan, target: str, budget: str | float, budget_ms: float) -> RandomCase:
    """The random networks that a search has to beat."""
    table, name = plan.table_keys[target], f"{target}-random-{budget_ms:.4g}ms"
    parts = random_parts(plan.job, plan.data, plan.space, table, budget_ms)
    return _case(RandomCase, plan, name, target, parts, budget=budget, budget_ms=budget_ms)


def _in_ms(case: CaseSettings, like: CaseSettings, table: LatencyTable) -> list[float]:
    """Budgets of an entry in milliseconds; empty unless it searches for the target of `like`."""
    if case.target != like.target or case.kind != "search":
        return []
    return [budget_in_ms(budget, table) for budget in case.budgets_ms or default_budgets(table)]


def plan_facts(plan: Plan, cases: Sequence[Case]) -> dict[str, Any]:
    """Facts of the plan for the record of a job."""
    return {
        "data": asdict(plan.data),
        "space_size": plan.space.size(),
        "tables": plan.table_keys,
        "cases": [case.to_dict() for case in cases],
    }
