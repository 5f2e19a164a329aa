"""Result of a sweep: its networks as a table, the best within a budget, the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.architecture import Architecture
from orchestration.latency.tolerance import is_within
from orchestration.reports.results import (
    CaseResult,
    JobResult,
    has_latency,
    latency_ms,
    mean,
    name_without_seed,
    needed_budget_ms,
    pareto_front,
    repeats,
    seed_of,
    spread,
)
from orchestration.state.result import Result, value_of

if TYPE_CHECKING:
    import pandas as pd

SUMMARIZED = ("top1", "measured_ms", "table_ms")
"""Columns that a summary gives as mean and standard deviation over seeds."""

COLUMNS = (
    *("target", "hardware", "kind", "network", "budget", "budget_ms", "seed"),
    *("table_ms", "measured_ms", "top1", "top5", "params", "macs"),
    *("warmup_s", "search_s", "retrain_s", "architecture", "folder"),
)

SUMMARY_COLUMNS = (
    *("target", "kind", "network", "budget_ms", "seeds"),
    *(f"{name}_{what}" for name in SUMMARIZED for what in ("mean", "sd")),
)


@dataclass(frozen=True, repr=False)
class SweepResult:
    """The finished networks of a sweep, side by side."""

    job: JobResult

    @property
    def cases(self) -> tuple[CaseResult, ...]:
        """All finished networks."""
        return self.job.cases

    @property
    def failed(self) -> dict[str, str]:
        """Why cases failed: the reason by case name."""
        return self.job.failed

    @property
    def links(self) -> tuple[str, ...]:
        """Addresses of the job's pages in the MLflow UI; empty if recording to MLflow failed."""
        return self.job.links

    def to_frame(self) -> pd.DataFrame:
        """Data frame with one row per finished network.

        Accuracies are fractions from 0 to 1. Unknown values are missing values (NaN or None).
        """
        import pandas as pd

        frame = pd.DataFrame([_row(case) for case in self.cases], columns=list(COLUMNS))
        return frame.astype(dict.fromkeys(("budget_ms", *SUMMARIZED, "top5"), float))

    def summary(self) -> pd.DataFrame:
        """Data frame with one row per network: mean and sample standard deviation over its seeds.

        Covers accuracy and latencies. The standard deviation is missing if there is only one seed.
        """
        import pandas as pd

        groups = repeats(case.values for case in self.cases)
        frame = pd.DataFrame([_summary(group) for group in groups], columns=list(SUMMARY_COLUMNS))
        numbers = [name for name in SUMMARY_COLUMNS if name.endswith(("_ms", "_mean", "_sd"))]
        return frame.astype(dict.fromkeys(numbers, float))

    def best(self, target: str, budget: float | str) -> CaseResult:
        """The most accurate searched network of a target within a budget.

        Networks that were searched for a smaller budget are candidates as well. Latency is the
        measured one; on a target that is not measured, it is the latency according to the table. If
        no network has an accuracy, the fastest one is returned.

        Choosing among seeds by test accuracy is biased: the accuracy of the chosen network is the
        highest of several draws. Report the mean over seeds (`summary`), and use this method to
        pick the network to deploy.

        Args:
            target: name of the target.
            budget: milliseconds, or as given in the job, e.g. "80%".

        Raises:
            KeyError: no searched network of this target is within the budget, or the job has no
                such budget.
        """
        searched = [case for case in self._of(target) if case.kind == "search"]
        budget_ms = _budget_ms(searched, target, budget)
        fitting = [case for case in searched if _fits(case, budget_ms)]
        if not fitting:
            raise KeyError(
                f"no searched network of {target!r} keeps {budget_ms:.4g} ms; "
                f"there are {_latencies(searched)}"
            )
        return max(fitting, key=lambda case: (case.top1 or 0.0, -latency_ms(case.values)))

    def pareto(self, target: str) -> list[CaseResult]:
        """Pareto front of accuracy and latency on a target, fastest network first.

        Includes all kinds of networks, to show whether searched networks are better than baselines.

        Raises:
            KeyError: no network of this target has an accuracy.
        """
        known = [case for case in self._of(target) if case.top1 is not None]
        if not known:
            raise KeyError(f"no network of {target!r} has a top-1; a job without retrain: has none")
        timed = [case for case in known if has_latency(case.values)]
        return pareto_front(timed, lambda case: (latency_ms(case.values), case.top1 or 0.0))

    def plot(self, path: str | Path) -> Path:
        """Plot accuracy against latency as PNG, SVG or PDF, with one panel per target.

        Points are means over seeds, with their standard deviations. The line is the Pareto front
        of these means.

        Returns:
            `path`.

        Raises:
            ValueError: no network has an accuracy, or the suffix of `path` is not supported.
        """
        from orchestration.reports.figures.sweep import write_sweep

        return write_sweep([case.values for case in self.cases], self.job.name, Path(path))

    def _of(self, target: str) -> list[CaseResult]:
        cases = [case for case in self.cases if case.target == target]
        if not cases:
            targets = list(dict.fromkeys(case.target for case in self.cases))
            raise KeyError(f"no finished network of target {target!r}; there are {targets}")
        return cases

    def __repr__(self) -> str:
        """Text for a console: the number of networks, and the summary."""
        counts = f"{len(self.cases)} networks, {len(self.failed)} failed"
        return f"sweep {self.job.name}: {counts}\n{self.summary().to_string(index=False)}"

    def _repr_html_(self) -> str:
        """HTML for a notebook: the summary, and the failed cases."""
        import pandas as pd

        table = self.summary().dropna(axis="columns", how="all")
        html: str = table.to_html(index=False, na_rep="-", float_format="{:.4g}".format)
        if not self.failed:
            return html
        failed = pd.DataFrame({"failed": self.failed.keys(), "reason": self.failed.values()})
        return html + str(failed.to_html(index=False))


def _row(case: CaseResult) -> dict[str, Any]:
    values = {name: getattr(case, name, value_of(case.values, name)) for name in COLUMNS}
    model = case.architecture
    ops = list(model.ops) if isinstance(model, Architecture) else model.name
    return values | {"network": case.name, "seed": seed_of(case.values), "architecture": ops}


def _summary(group: list[Result]) -> dict[str, Any]:
    first = group[0]
    row = {name: value_of(first, name) for name in ("target", "kind", "budget_ms")}
    row |= {"network": name_without_seed(first), "seeds": len(group)}
    for name in SUMMARIZED:
        values = [value_of(result, name) for result in group]
        row |= {f"{name}_mean": mean(values), f"{name}_sd": spread(values)}
    return row


def _budget_ms(searched: list[CaseResult], target: str, budget: float | str) -> float:
    """Convert a budget to milliseconds. A string is looked up among the budgets of the cases."""
    if not isinstance(budget, str):
        return float(budget)
    known = {str(case.values["budget"]).replace(" ", ""): case.budget_ms for case in searched}
    budget_ms = known.get(budget.replace(" ", ""))
    if budget_ms is None:
        raise KeyError(f"no search on {target!r} was for {budget!r}; there are {list(known)}")
    return budget_ms


def _fits(case: CaseResult, budget_ms: float) -> bool:
    """Whether the budget of a search is at most `budget_ms`, and its network is within it."""
    exact_ms = needed_budget_ms(case.values)
    # Case names show budgets with four digits; the rounded budget is accepted as well.
    rounded_ms = float(f"{exact_ms:.4g}")
    is_candidate = min(exact_ms, rounded_ms) <= budget_ms
    return is_candidate and is_within(latency_ms(case.values), budget_ms)


def _latencies(cases: Iterable[CaseResult]) -> str:
    texts = [f"{case.name} ({latency_ms(case.values):.4g} ms)" for case in cases]
    return ", ".join(texts) or "none"
