"""The Python API for sweeps: one search per hardware target and latency budget.

result = sweep("jobs/search_mobile.yaml", targets=["mobile", "cpu"], budgets_ms=["80%", "120%"])
result.best("mobile", "80%"); result.plot("pareto.png")
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestration.config.job import Job
from orchestration.config.loading import SpecError, check_job, load_job
from orchestration.driver.notebook import live_table
from orchestration.driver.pipeline import no_log, run
from orchestration.driver.progress import Log
from orchestration.reports.sweep_result import SweepResult

Budgets = Iterable[float | str]


def sweep(
    job: str | Path | Job,
    *,
    targets: Sequence[str] | None = None,
    budgets_ms: Budgets | Mapping[str, Budgets] | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    log: Log = no_log,
) -> SweepResult:
    """Search a network for every target, budget and seed; resumes a sweep that was stopped.

    Equivalent to a job file with these `cases:`. Runs on the Ray cluster at RAY_ADDRESS, or on a
    local one started for it. In a notebook a live table shows the progress of the cases.

    Args:
        job: a job or a job file with images, space, schedule and storage. Its entries with a
            baseline or an architecture are kept for the targets of the sweep.
        targets: names of targets; None means those of the job.
        budgets_ms: milliseconds, or "80%" of the reference network's latency; a mapping by target
            if they differ. None means those of the job for its targets, and for others 60, 80,
            100, 125 and 160 %, clipped to the feasible range.
        seeds: the sweep is repeated for each; None means those of the job.
        overrides: "section.key=value" each, as for `--set`.
        log: called with each progress line.

    Raises:
        SpecError: the sweep is empty, has a case twice, or is not feasible; nothing was trained.
        StorageError: the storage cannot be used, or another driver owns the job's folder.
    """
    base = job if isinstance(job, Job) else load_job(job, overrides)
    if isinstance(job, Job) and overrides:
        raise SpecError("overrides belong to a job file; change the job itself instead")
    swept = sweep_job(base, targets, budgets_ms, seeds)
    with live_table() as show:
        return SweepResult(run(swept, log=log, on_record=show))


def sweep_job(
    base: Job,
    targets: Sequence[str] | None = None,
    budgets_ms: Budgets | Mapping[str, Budgets] | None = None,
    seeds: Sequence[int] | None = None,
) -> Job:
    """The job equivalent to a sweep; see `sweep`."""
    values: dict[str, Any] = json.loads(json.dumps(base.to_dict()))
    named = list(dict.fromkeys(case.target for case in base.cases))
    wanted = named if targets is None else list(targets)
    by_target = _by_target(wanted, budgets_ms)
    entries = values["cases"]
    values["cases"] = [
        *(entry for target in wanted for entry in _searches(entries, target, by_target)),
        *(entry for entry in entries if entry["target"] in wanted and not _is_search(entry)),
    ]
    if seeds is not None:
        values["seeds"] = list(seeds)
    return check_job(values, "sweep")


def _by_target(
    targets: Sequence[str], budgets_ms: Budgets | Mapping[str, Budgets] | None
) -> dict[str, list[float | str]]:
    """Budgets by target; empty if there are none."""
    if budgets_ms is None:
        return {}
    if isinstance(budgets_ms, str):
        raise SpecError(f"budgets_ms is {budgets_ms!r}; expected a list, e.g. [{budgets_ms!r}]")
    if not isinstance(budgets_ms, Mapping):
        budgets = list(budgets_ms)
        return dict.fromkeys(targets, budgets)
    unknown = [name for name in budgets_ms if name not in targets]
    if unknown:
        raise SpecError(
            f"budgets_ms is for {unknown[0]!r}, which is no target of the sweep; expected some of "
            f"{', '.join(targets)}"
        )
    return {name: list(budgets) for name, budgets in budgets_ms.items()}


def _searches(
    entries: Sequence[dict[str, Any]], target: str, by_target: Mapping[str, list[float | str]]
) -> list[dict[str, Any]]:
    """Search entries of a target."""
    if target in by_target:
        return [{"target": target, "budgets_ms": by_target[target]}]
    own = [entry for entry in entries if entry["target"] == target and _is_search(entry)]
    is_named = any(entry["target"] == target for entry in entries)
    return own if is_named else [{"target": target}]


def _is_search(entry: Mapping[str, Any]) -> bool:
    return entry.get("baseline") is None and entry.get("architecture") is None
