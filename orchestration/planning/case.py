"""Kinds of cases, one class each, and their form in JSON files.

Needs no torch, so that a finished job is recognised quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from orchestration.config.digest import digest
from orchestration.config.storage_layout import case_folder, checkpoints_folder
from orchestration.planning.content_keys import Parts

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
        return self.name.removesuffix(seed_end(self.seed))

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
        return kind(**{item.name: given[item.name] for item in fields(kind) if item.name in given})


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


def seed_end(seed: int) -> str:
    """Suffix of the name of a case; empty for seed 0."""
    return f"-seed{seed}" if seed else ""
