"""`plan.json`: the cases of a run that has not ended, for readers of the job's folder.

`job.json` is written at the end of a run. Until then `plan.json` describes a run that is in
progress, or that was stopped or killed. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from cluster.storage import Storage, StorageError
from nas_core.latency import LatencyTable
from orchestration.config.job import Job
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import (
    CASES,
    CHECKPOINTS,
    JOB_FILE,
    PLAN_FILE,
    PLAN_FORMAT,
    case_of_checkpoints,
    case_of_result,
)
from orchestration.planning.case import Case, UnplannedCase
from orchestration.planning.plan import Plan

LONG = ("model", "parts")
"""Fields of a case that are left out, since readers do not need them."""


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """The plan of a job, as read from its folder."""

    cases: tuple[Case, ...]
    is_complete: bool = False
    """Whether all cases are known; searches are not until their latency tables are measured."""
    unmeasured: tuple[str, ...] = ()
    """Targets whose latency tables are not measured yet."""
    warmup_epochs: int | None = None
    """Epochs before a search; this and the next two fields are None if unknown."""
    search_epochs: int | None = None
    """Epochs of a search, including the warm-up."""
    retrain_epochs: int | None = None
    asha: Mapping[str, Any] | None = None
    """Settings of early stopping; None without it."""
    at_once: int | None = None
    """Cases that run concurrently; None before Ray is started."""
    begun: str = ""
    """Start of a run that has not ended, ISO 8601 in UTC; empty if it has ended."""
    ended: Mapping[str, Any] | None = None
    """Content of `job.json` if the last run has ended."""


@contextmanager
def begun(
    plan: Plan,
    cases: Sequence[Case],
    folder: Storage,
    tables: Mapping[str, LatencyTable],
    *,
    is_complete: bool,
) -> Iterator[None]:
    """Context manager that writes `plan.json` for a run; a SpecError in the block deletes it.

    Args:
        plan: of the job.
        cases: that are known.
        folder: of the job.
        tables: that are known, by target.
        is_complete: whether all cases are known.
    """
    values = {
        "format": PLAN_FORMAT,
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "epochs": _epochs(plan.job),
        "asha": None if plan.job.asha is None else asdict(plan.job.asha),
        "at_once": None,
        "is_complete": is_complete,
        "unmeasured": sorted(plan.table_keys.keys() - tables.keys()),
        "cases": _short(cases),
    }
    folder.write_json(PLAN_FILE, values)
    try:
        yield
    except SpecError:
        end_plan(folder)
        raise


def known_further(cases: Sequence[Case], folder: Storage, at_once: int) -> None:
    """Update `plan.json` with all cases, once tables are measured, and the number run at once."""
    known = {"is_complete": True, "unmeasured": [], "at_once": at_once, "cases": _short(cases)}
    folder.write_json(PLAN_FILE, {**folder.read_json(PLAN_FILE), **known})


def end_plan(folder: Storage) -> None:
    """Delete `plan.json` when the run has ended or cannot begin."""
    folder.delete(PLAN_FILE)


def _short(cases: Iterable[Case]) -> list[dict[str, Any]]:
    return [{k: v for k, v in case.to_dict().items() if k not in LONG} for case in cases]


def _epochs(job: Job) -> dict[str, int | None]:
    search = job.search
    return {
        "warmup": search.warmup_epochs if search.has_warmup else 0,
        "search": search.total_epochs,
        "retrain": None if job.retrain is None else job.retrain.epochs,
    }


def read_plan(folder: Storage) -> JobPlan:
    """Read the plan of a job: of the current run, else of the last one that ended.

    Without either file, as left by earlier versions, cases are inferred from the folder.

    Raises:
        StorageError: a file cannot be read, or is of another version.
    """
    place = next((place for place in (PLAN_FILE, JOB_FILE) if folder.exists(place)), CASES)
    read = {PLAN_FILE: _begun, JOB_FILE: _ended, CASES: _left}[place]
    try:
        return read(folder)
    except StorageError:
        if place == CASES or folder.exists(place):
            raise
        return read_plan(folder)  # the run has just ended
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StorageError(
            f"{folder.where(place)} cannot be read ({error!r}); expected what this version writes: "
            "submit the job again to write it anew"
        ) from None


def _begun(folder: Storage) -> JobPlan:
    values = folder.read_json(PLAN_FILE)
    if values["format"] != PLAN_FORMAT:
        raise ValueError(f"format {values['format']!r}, not {PLAN_FORMAT!r}")
    return JobPlan(
        cases=_cases(values["cases"]),
        is_complete=values["is_complete"],
        unmeasured=tuple(values["unmeasured"]),
        warmup_epochs=values["epochs"]["warmup"],
        search_epochs=values["epochs"]["search"],
        retrain_epochs=values["epochs"]["retrain"],
        asha=values["asha"],
        at_once=values["at_once"],
        begun=values["begun"],
    )


def _ended(folder: Storage) -> JobPlan:
    values = folder.read_json(JOB_FILE)
    settings: Mapping[str, Any] = values["settings"]
    search, retrain = settings.get("search") or {}, settings.get("retrain") or {}
    planned = values["plan"].get("cases")
    warmup, own = search.get("warmup_epochs", 0), search.get("epochs")
    return JobPlan(
        cases=_cases_there(folder) if planned is None else _cases(planned),
        is_complete=planned is not None,
        warmup_epochs=0 if search.get("strategy") == "rl_trials" else warmup,
        search_epochs=None if own is None else warmup + own,
        retrain_epochs=retrain.get("epochs"),
        asha=settings.get("asha"),
        ended=values,
    )


def _cases(values: Iterable[Mapping[str, Any]]) -> tuple[Case, ...]:
    return tuple(Case.from_dict(case) for case in values)


def _left(folder: Storage) -> JobPlan:
    return JobPlan(cases=_cases_there(folder))


def _cases_there(folder: Storage) -> tuple[Case, ...]:
    """Cases with a result or a checkpoint in the folder."""
    cases: dict[str, Case] = {}
    for place in dict.fromkeys(key.split("/")[1] for key in folder.list(CHECKPOINTS)):
        if match := case_of_checkpoints(place):
            name, case_key = match
            cases[name] = UnplannedCase(name=name, key=case_key)
    for key in folder.list(CASES):
        if (owner := case_of_result(key)) is not None:
            cases[owner] = _cases([{"name": owner, **folder.read_json(key)}])[0]
    return tuple(cases[name] for name in sorted(cases))
