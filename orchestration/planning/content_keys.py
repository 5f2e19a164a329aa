"""Content addresses: what a table, a warm-up and a case depend on, as a short digest.

A finished job is recognised by these, not by its name; what a change does not touch is kept. What a
case depends on is kept part by part, so that a plan can say why it has to be done again.
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
"""By name of something that a result depends on, the digest of it."""


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
    """What rows depend on; how many networks a table was fitted to makes no other table, nor does
    what is measured later."""
    values = asdict(measure)
    for name in ("calibrate_s", "accept_noisy", "across"):
        del values[name]
    return values


def shipped_key(table: LatencyTable) -> str:
    """Of a latency table that was not measured: what it says."""
    return digest(table.to_dict())


def warmup_key(job: Job, data: DataFacts, space: SearchSpace) -> str:
    """Of a warm-up: space, images, seed and the settings that it depends on; no hardware."""
    return digest({**_images(job, data, space), "warm-up": digest(job.search.warmup_facts())})


def training_parts(job: Job, data: DataFacts, space: SearchSpace, table: str) -> Parts:
    """Of the reference network's result: everything but the search."""
    retrain = asdict(job.retrain) if job.retrain else {}
    images = _images(job, data, space)
    return {**images, "retrain": digest(retrain), "latency table": table}


def search_parts(
    job: Job, data: DataFacts, space: SearchSpace, table: str, budget_ms: float, search_ms: float
) -> Parts:
    """Of a searched case's result: the search ran against `search_ms`."""
    settings = job.search.outcome_facts()
    found = training_parts(job, data, space, table)
    return {
        **found,
        "search": digest({**settings, "budget_ms": search_ms}),
        "budget": digest({"ms": budget_ms}),
    }


def model_parts(
    job: Job, data: DataFacts, space: SearchSpace, table: str, model: dict[str, Any]
) -> Parts:
    """Of the result of a baseline or a given architecture, by its JSON."""
    return {**training_parts(job, data, space, table), "network": digest(model)}


def random_parts(
    job: Job, data: DataFacts, space: SearchSpace, table: str, budget_ms: float
) -> Parts:
    """Of the result of random networks at a latency: as many as the cost of a search pays for."""
    settings = {**job.search.cost_facts(), "budget_ms": budget_ms}
    return {**training_parts(job, data, space, table), "random": digest(settings)}


def search_key(parts: Parts) -> str:
    """Of a search that several budgets share: all but the budget and the retraining."""
    return digest({name: part for name, part in parts.items() if name not in ("budget", "retrain")})


def _images(job: Job, data: DataFacts, space: SearchSpace) -> Parts:
    return {
        "data": digest({"settings": _looks(job.data, data), "fingerprint": data.fingerprint}),
        "space": digest(space.to_dict()),
        "seed": str(job.seed),
    }


def _looks(settings: DataSettings, data: DataFacts) -> dict[str, Any]:
    """What images look like, and in which order they come.

    The fingerprint stands for what there is. Settings that ask for nothing are left out, so that
    what was made before there were such settings still holds.
    """
    found = asdict(settings)
    for name in ("path", "glyphs", "columns", "classes", "memory_gib", "stream"):
        del found[name]
    for name in ("brightness", "contrast", "saturation"):
        if found[name] == 0:
            del found[name]
    if found["augment"] != "crop":
        del found["crop_area"]
    if found["augment"] == "shift":
        del found["augment"]
    if is_streamed(settings, data):
        found["stream"] = [settings.stream.lanes, settings.stream.window_mib]
    return found
