"""Access to the contents of `result.json` files: latency, seed, grouping by seed.

Results of one case under several seeds are its repeats; they have a mean and a spread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TypeVar

from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.baselines.registry import Baseline, model_from_dict
from orchestration.planning.case import Case
from orchestration.state.result import Latencies, Result, Scored


def latency_ms(result: Latencies) -> float:
    """Measured latency, or the table's on a target that is not measured."""
    ms = result["table_ms"] if result["measured_ms"] is None else result["measured_ms"]
    assert ms is not None, "asked only of networks that have a latency"
    return float(ms)


def has_latency(result: Latencies) -> bool:
    """Whether the network was measured or is covered by the table."""
    return result["measured_ms"] is not None or result["table_ms"] is not None


def needed_budget_ms(result: Scored) -> float:
    """The budget of a network that was searched within one."""
    assert result["budget_ms"] is not None, "a search has a budget"
    return result["budget_ms"]


def seed_of(result: Result) -> int:
    """The seed of the search and training of a network; 0 if the file is too old to have one."""
    return int(result.get("seed") or 0)


def name_without_seed(result: Result) -> str:
    """The name shared by all repeats of a case."""
    return str(result["case"]).removesuffix(f"-seed{seed_of(result)}")


def model_name(result: Result) -> str:
    """The name of a baseline or a given network: its case without target and seed."""
    return name_without_seed(result).removeprefix(f"{result['target']}-")


def repeats(results: Iterable[Result]) -> list[list[Result]]:
    """Results grouped so that only seeds differ within a group, in order of first occurrence."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        key = (result["job"], result["target"], result["kind"], name_without_seed(result))
        groups.setdefault(key, []).append(result)
    return list(groups.values())


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the known values; None if there is none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def spread(values: Sequence[float | None]) -> float | None:
    """Sample standard deviation of the known values; None if there are fewer than two."""
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None


Candidate = TypeVar("Candidate")


def pareto_front(
    candidates: Iterable[Candidate], position: Callable[[Candidate], tuple[float, float]]
) -> list[Candidate]:
    """Candidates that are more accurate than all candidates that are at least as fast.

    Args:
        candidates: any number; the first of equal ones counts.
        position: returns latency and accuracy of a candidate.

    Returns:
        The Pareto front, fastest first and hence most accurate last.
    """
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda each: (position(each)[0], -position(each)[1])):
        if not front or position(candidate)[1] > position(front[-1])[1]:
            front.append(candidate)
    return front


@dataclass(frozen=True)
class CaseResult:
    """One finished network. Accuracies are None if the job does not retrain."""

    name: str
    kind: str
    """"search", "reference", "random", "baseline" or "given"."""
    target: str
    hardware: str
    budget_ms: float | None
    table_ms: float | None
    """Latency by the table; None if the network is not a member of the search space."""
    measured_ms: float | None
    """Measured latency; None on a target that is not measured."""
    top1: float | None
    top5: float | None
    params: int
    macs: int
    search_s: float
    architecture: Architecture | Baseline
    folder: str
    """Location of its files: architecture.json, result.json, model/."""
    values: Result = field(repr=False)
    """The complete content of result.json."""


@dataclass(frozen=True)
class JobResult:
    """The cases of a job."""

    name: str
    cases: tuple[CaseResult, ...]
    failed: dict[str, str]
    """Reasons of failed cases, by case name."""
    links: tuple[str, ...]
    """Pages of the MLflow UI; empty if recording failed."""

    def case(self, name: str) -> CaseResult:
        """The case with this name.

        Raises:
            KeyError: no such case, or it failed.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(f"no finished case {name!r}; there are {[c.name for c in self.cases]}")


def case_result(values: Result, case: Case, folder: Storage) -> CaseResult:
    """A finished case, from the content of its `result.json` in the job's storage."""
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
