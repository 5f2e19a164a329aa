"""Content addresses: what a table and a case depend on, as a short digest.

A finished job is recognised by these, not by its name; what a change does not touch is kept.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from cluster.hardware import Target, facts
from cluster.runtimes import runtime_of
from nas_core.latency import LatencyTable
from nas_core.settings import MeasureSettings
from nas_core.space import SearchSpace
from orchestration.job import Job
from orchestration.sources import DataFacts


def digest(values: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits, equal for equal values whatever their order."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def table_key(space: SearchSpace, target: Target, measure: MeasureSettings) -> str:
    """Of a latency table: the space, the target, its runtime and how it is measured.

    Where the target is this host, its processor belongs to the key; a node that is asked for by
    what it offers is taken to be the same as long as the same is asked for.
    """
    is_here = target.device == "cpu" and not target.resources and not target.labels
    return digest(
        {
            "space": space.to_dict(),
            "target": target.key(),
            "version": runtime_of(target).version(),
            "measure": _how(measure),
            "processor": facts()["cpu"] if is_here else None,
            "node": None if is_here else [dict(target.resources), dict(target.labels)],
        }
    )


def _how(measure: MeasureSettings) -> dict[str, Any]:
    """What rows depend on: how many networks a table was fitted to is no other table."""
    values = asdict(measure)
    for name in ("calibrate_s", "accept_noisy"):
        del values[name]
    return values


def shipped_key(table: LatencyTable) -> str:
    """Of a latency table that was not measured: what it says."""
    return digest(table.to_dict())


def training_key(job: Job, data: DataFacts, space: SearchSpace, table: str) -> str:
    """Of the reference network's result: everything but the search."""
    return digest(_common(job, data, space, table))


def case_key(
    job: Job, data: DataFacts, space: SearchSpace, table: str, budget_ms: float | None
) -> str:
    """Of a searched case's result."""
    search = {"search": asdict(job.search), "budget_ms": budget_ms}
    return digest({**_common(job, data, space, table), **search})


def model_key(
    job: Job, data: DataFacts, space: SearchSpace, table: str, model: dict[str, Any]
) -> str:
    """Of the result of a baseline or a given architecture, by its JSON."""
    return digest({**_common(job, data, space, table), "model": model})


def _common(job: Job, data: DataFacts, space: SearchSpace, table: str) -> dict[str, Any]:
    settings = asdict(job.data)
    for name in ("path", "glyphs"):  # the fingerprint stands for what is there
        del settings[name]
    return {
        "data": settings,
        "fingerprint": data.fingerprint,
        "space": space.to_dict(),
        "retrain": asdict(job.retrain) if job.retrain else None,
        "seed": job.seed,
        "table": table,
    }
