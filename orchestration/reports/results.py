"""What can be told from a `result.json`: its latency, its seed, which results belong together.

Results of one network under several seeds are its repeats; they have a mean and a spread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TypeVar

from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.baselines.registry import Baseline, model_from_dict
from orchestration.planning.cases import Case
from orchestration.state.result import Latencies, Result, Scored


def latency_ms(result: Latencies) -> float:
    """As measured; by the table on a target that is not measured."""
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
    """The seed that a network was searched and trained with; 0 where an older file has none."""
    return int(result.get("seed") or 0)


def name_without_seed(result: Result) -> str:
    """The name that all repeats of a case have in common."""
    return str(result["case"]).removesuffix(f"-seed{seed_of(result)}")


def model_name(result: Result) -> str:
    """What a baseline or a given network is called: its case without target and seed."""
    return name_without_seed(result).removeprefix(f"{result['target']}-")


def repeats(results: Iterable[Result]) -> list[list[Result]]:
    """Results that differ in nothing but their seed, together, in the order of their first."""
    found: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        key = (result["job"], result["target"], result["kind"], name_without_seed(result))
        found.setdefault(key, []).append(result)
    return list(found.values())


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def spread(values: Sequence[float | None]) -> float | None:
    """Sample standard deviation of those that are known; None where they are fewer than two."""
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None


Candidate = TypeVar("Candidate")


def pareto_front(
    candidates: Iterable[Candidate], place: Callable[[Candidate], tuple[float, float]]
) -> list[Candidate]:
    """Those that are more accurate than all that are as fast or faster; of equal ones, the first.

    Args:
        candidates: any number of them.
        place: latency and accuracy of one.

    Returns:
        The fastest first, so the most accurate last.
    """
    front: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (place(one)[0], -place(one)[1])):
        if not front or place(one)[1] > place(front[-1])[1]:
            front.append(one)
    return front


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
    values: Result = field(repr=False)
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
