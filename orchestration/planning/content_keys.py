"""Content keys: digests of everything that a table, a warm-up or a case depends on.

Finished work is recognised by its key, not by its name, so a change of the job redoes only what
depends on it. Cases keep a digest per dependency, so that a plan can say why one has to be redone.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cluster.hardware import Target, facts
from cluster.runtimes import runtime_of
from nas_core.latency import LatencyTable
from nas_core.settings import MeasureSettings
from nas_core.space import SearchSpace
from orchestration.config.data import DataSettings
from orchestration.config.digest import digest
from orchestration.config.job import Job
from orchestration.data.info import DataFacts, is_streamed

Parts = dict[str, str]
"""Digest of each dependency of a result, by name."""


def table_key(space: SearchSpace, target: Target, measure: MeasureSettings) -> str:
    """Key of a latency table: space, target, version of the runtime, and settings of measuring.

    If the target is this host, its processor is part of the key. A node that is selected by
    resources or labels is identified by these.
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
    """Settings that rows depend on. The number of calibration networks and later measurements do
    not change the key."""
    values = asdict(measure)
    for name in ("calibrate_s", "accept_noisy", "across"):
        del values[name]
    return values


def shipped_key(table: LatencyTable) -> str:
    """Key of a latency table that was not measured: a digest of its content."""
    return digest(table.to_dict())


def warmup_key(job: Job, data: DataFacts, space: SearchSpace) -> str:
    """Key of a warm-up: space, images, seed and its settings. It does not depend on hardware."""
    return digest({**_images(job, data, space), "warm-up": digest(job.search.warmup_facts())})


def training_parts(job: Job, data: DataFacts, space: SearchSpace, table: str) -> Parts:
    """Dependencies of the reference network's result: everything but the search."""
    retrain = asdict(job.retrain) if job.retrain else {}
    images = _images(job, data, space)
    return {**images, "retrain": digest(retrain), "latency table": table}


def search_parts(
    job: Job, data: DataFacts, space: SearchSpace, table: str, budget_ms: float, search_ms: float
) -> Parts:
    """Dependencies of a searched case's result. The search itself runs against `search_ms`."""
    settings = job.search.outcome_facts()
    parts = training_parts(job, data, space, table)
    return {
        **parts,
        "search": digest({**settings, "budget_ms": search_ms}),
        "budget": digest({"ms": budget_ms}),
    }


def model_parts(
    job: Job, data: DataFacts, space: SearchSpace, table: str, model: dict[str, Any]
) -> Parts:
    """Dependencies of the result of a baseline or a given architecture, which is given as JSON."""
    return {**training_parts(job, data, space, table), "network": digest(model)}


def random_parts(
    job: Job, data: DataFacts, space: SearchSpace, table: str, budget_ms: float
) -> Parts:
    """Dependencies of the result of random networks. The cost of a search sets their number."""
    settings = {**job.search.cost_facts(), "budget_ms": budget_ms}
    return {**training_parts(job, data, space, table), "random": digest(settings)}


def search_key(parts: Parts) -> str:
    """Key of a search that several budgets share: everything but budget and retraining."""
    return digest({name: part for name, part in parts.items() if name not in ("budget", "retrain")})


def _images(job: Job, data: DataFacts, space: SearchSpace) -> Parts:
    return {
        "data": digest({"settings": _looks(job.data, data), "fingerprint": data.fingerprint}),
        "space": digest(space.to_dict()),
        "seed": str(job.seed),
    }


def _looks(settings: DataSettings, data: DataFacts) -> dict[str, Any]:
    """Settings that affect the content or the order of images.

    The fingerprint represents the source itself. Settings that are off are left out, so that keys
    from before these settings existed stay valid.
    """
    values = asdict(settings)
    for name in ("path", "glyphs", "columns", "classes", "memory_gib", "stream"):
        del values[name]
    for name in ("brightness", "contrast", "saturation"):
        if values[name] == 0:
            del values[name]
    if values["augment"] != "crop":
        del values["crop_area"]
    if values["augment"] == "shift":
        del values["augment"]
    if is_streamed(settings, data):
        values["stream"] = [settings.stream.lanes, settings.stream.window_mib]
    return values
