"""What a finished job hands back: its cases, from the files in storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.baselines.registry import Baseline, model_from_dict
from orchestration.planning.cases import Case


@dataclass(frozen=True)
class CaseResult:
    """One finished network. Accuracies are None where the job does not retrain."""

    name: str
    kind: str
    """"search", "reference", "random", "baseline" or "given"."""
    target: str
    hardware: str
    budget_ms: float | None
    table_ms: float | None
    """None for what is no member of the searched space."""
    measured_ms: float | None
    """None on a target that is not measured."""
    top1: float | None
    top5: float | None
    params: int
    macs: int
    search_s: float
    architecture: Architecture | Baseline
    folder: str
    """Where its files are: architecture.json, result.json, model/."""
    values: dict[str, Any] = field(repr=False)
    """All of result.json."""


@dataclass(frozen=True)
class JobResult:
    """All cases of a job."""

    name: str
    cases: tuple[CaseResult, ...]
    failed: dict[str, str]
    """By name of a case that failed, why."""
    links: tuple[str, ...]
    """Pages of the MLflow UI; empty where recording failed."""

    def case(self, name: str) -> CaseResult:
        """The case of that name.

        Raises:
            KeyError: no such case, or it failed.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(f"no finished case {name!r}; there are {[c.name for c in self.cases]}")


def read_result(folder: Storage, case: Case) -> CaseResult:
    """A finished case, from the job's storage."""
    values = folder.read_json(f"{case.folder}/result.json")
    return CaseResult(
        name=values["case"],
        kind=values["kind"],
        target=values["target"],
        hardware=values["hardware"],
        budget_ms=values["budget_ms"],
        table_ms=values["table_ms"],
        measured_ms=values["measured_ms"],
        top1=values.get("top1"),
        top5=values.get("top5"),
        params=values["params"],
        macs=values["macs"],
        search_s=values["search_s"],
        architecture=model_from_dict(values["architecture"]),
        folder=folder.where(case.folder),
        values=values,
    )
