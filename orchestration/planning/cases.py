"""Cases of a job: the networks that it makes, with their content keys.

Needs no torch, so that a finished job is recognised quickly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from nas_core.architecture import Model
from nas_core.latency import LatencyTable
from orchestration.config.cases import CaseSettings
from orchestration.config.digest import digest
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import case_folder, checkpoints_folder
from orchestration.planning.budgets import (
    budget_in_ms,
    check_feasible,
    check_objective,
    default_budgets,
    middle_budget,
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

ORDER = ("reference", "search", "random", "given", "baseline")
"""Kinds of cases, in the order of tables."""

KNOWN = frozenset({"reference", "given", "baseline"})
"""Kinds of cases whose network is known in advance."""

STORED = (
    *("name", "kind", "target", "budget", "budget_ms", "key", "table_key", "model", "seed"),
    *("parts", "search_ms", "search_key", "warmup_key"),
)
"""Keys of every case in JSON, whatever its kind."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Fields that all kinds of cases have. Each kind is a subclass."""

    kind: ClassVar[str]
    """One of ORDER, or "warmup"."""

    name: str
    target: str
    key: str
    table_key: str
    seed: int = 0
    parts: Parts = field(default_factory=dict)
    """Everything that the result depends on."""

    @property
    def folder(self) -> str:
        """Key of the case's folder in the job's storage."""
        return case_folder(self.name)

    @property
    def name_of_all_seeds(self) -> str:
        """Name without the seed: equal for cases that differ in the seed alone."""
        return self.name.removesuffix(_seed_end(self.seed))

    @property
    def limit_ms(self) -> float | None:
        """Latency that the network may take; None if the case has no budget."""
        return None

    @property
    def search_key(self) -> str | None:
        """Key of a search that several cases share; None if the case runs its own or none."""
        return None

    @property
    def warmup_key(self) -> str | None:
        """Key of the warm-up that the case starts from; None if there is none."""
        return None

    @property
    def hosts_search(self) -> bool:
        """Whether the case runs the search that others share."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Values under the keys of STORED; None where the kind has no such field."""
        return {name: getattr(self, name, None) for name in STORED}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Case:
        """The case that `to_dict` has described; further keys are ignored.

        Keys may be missing: `plan.json` leaves out "model" and "parts", and older versions wrote no
        "search_ms", when no budgets shared a search.

        Raises:
            KeyError: there is no such kind of case.
            TypeError: a field of its kind is missing.
        """
        kind = KINDS[values["kind"]]
        given = {name: value for name, value in values.items() if value is not None}
        given = {"search_ms": given.get("budget_ms"), **given}
        return kind(**{one.name: given[one.name] for one in fields(kind) if one.name in given})


@dataclass(frozen=True, kw_only=True)
class WarmUpCase(Case):
    """Weights that searches start from. They make no network and depend on no target."""

    kind = "warmup"

    target: str = ""
    table_key: str = ""

    @property
    def warmup_key(self) -> str:
        """Key of the warm-up itself."""
        return self.key


@dataclass(frozen=True, kw_only=True)
class ReferenceCase(Case):
    """The reference network of a target, the one to beat."""

    kind = "reference"


@dataclass(frozen=True, kw_only=True)
class NamedCase(Case):
    """A network that the job names."""

    model: dict[str, Any] = field(default_factory=dict)
    """JSON of the network; empty if the case was read from a file that leaves it out."""


@dataclass(frozen=True, kw_only=True)
class GivenCase(NamedCase):
    """An architecture that the job gives: a file or a published one."""

    kind = "given"


@dataclass(frozen=True, kw_only=True)
class BaselineCase(NamedCase):
    """A network from the literature."""

    kind = "baseline"


@dataclass(frozen=True, kw_only=True)
class BudgetCase(Case):
    """A network that is to be found within a budget."""

    budget: str | float
    """Budget in the words of the job file, e.g. "80%"; or milliseconds."""
    budget_ms: float

    @property
    def limit_ms(self) -> float:
        """The budget."""
        return self.budget_ms


@dataclass(frozen=True, kw_only=True)
class SearchCase(BudgetCase):
    """A network that a search finds."""

    kind = "search"

    search_ms: float
    """Budget that the search runs against: the case's own, unless several share a search."""
    search_key: str | None = None
    warmup_key: str | None = None

    @property
    def hosts_search(self) -> bool:
        """Whether the case runs the search that others share."""
        return self.search_key is not None and self.search_ms == self.budget_ms


@dataclass(frozen=True, kw_only=True)
class RandomCase(BudgetCase):
    """The best of random networks within the budget of a search."""

    kind = "random"


@dataclass(frozen=True, kw_only=True)
class UnplannedCase(Case):
    """A case of which only name and key are known, from its checkpoints; treated as a search."""

    kind = "search"

    target: str = ""
    table_key: str = ""


KINDS: Mapping[str, type[Case]] = {
    case.kind: case
    for case in (WarmUpCase, ReferenceCase, SearchCase, RandomCase, GivenCase, BaselineCase)
}
"""Class of each kind of case."""


def training_of(case: Case) -> str:
    """Key of a training: equal for cases that train the same network, for any target.

    The network of a search is not known in advance, so a search shares its training with no other.
    """
    if case.kind not in KNOWN:
        return case.name
    return digest({name: part for name, part in case.parts.items() if name != "latency table"})


def checkpoints_place(case: Case) -> str:
    """Folder of the checkpoints of a case in the job's storage, until it is finished."""
    return checkpoints_folder(case.name, case.key)


def warmup_case(key: str, seed: int) -> WarmUpCase:
    """A warm-up, as something to run by itself."""
    return WarmUpCase(name=f"warm-up{_seed_end(seed)}", key=key, seed=seed)


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


def _seed_end(seed: int) -> str:
    return f"-seed{seed}" if seed else ""


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
        name=f"{name}{_seed_end(plan.job.seed)}",
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
