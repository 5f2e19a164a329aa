"""Job of the evidence, and its networks with their latencies on all targets of the job.

Compared latencies come from one run that timed all networks interleaved (the job's `across/`), not
from the separate measurements after each training. On a target that cannot be measured here they
come from its latency table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration import load_job, run
from orchestration.config.job import Job
from orchestration.reports.cross_target import cross_target_latencies, is_by_table
from orchestration.reports.results import model_name

JOB = Path(__file__).resolve().parents[3] / "jobs" / "compare_mobilenet.yaml"


@dataclass(frozen=True)
class Trained:
    """A network that was trained alone and measured."""

    kind: str
    """"search", "baseline", "reference" or "given"."""
    name: str
    """Name of a baseline; for others their case without the seed."""
    own: str
    """Target that it was searched for."""
    budget: str | None
    """Budget as the job file writes it."""
    budget_ms: float | None
    seed: int
    top1: float
    """Percent."""
    ms: Mapping[str, float]
    """Latency by target. A baseline has none on a target that only has a latency table."""
    warmup_s: float
    """Worker seconds, as the next two: wall-clock time times the number of workers."""
    search_s: float
    retrain_s: float
    ops: tuple[str, ...]
    """Empty for a baseline."""
    hardware: Mapping[str, str] = field(default_factory=dict)
    """Description of the hardware of each target."""
    by_table: frozenset[str] = frozenset()
    """Targets on which nothing was measured: latencies come from a latency table."""


def networks_of(settings: Sequence[str]) -> tuple[Job, list[Trained]]:
    """Run a variant of the job, or continue it; return it with its trained networks."""
    job = load_job(JOB, settings)
    result = run(job, log=lambda text: print(text, file=sys.stderr, flush=True))
    if result.failed:
        raise SystemExit(f"cases failed: {result.failed}; the same command tries them again")
    return job, trained(Storage(job.storage), job.name)


def trained(storage: Storage, job: str) -> list[Trained]:
    """Networks of a finished job, by its name in a storage."""
    folder = storage.sub(job)
    results = _results(folder)
    tables = tables_of(storage, job)
    across = cross_target_latencies(results, tables, folder)
    hardware = {item["target"]: item["hardware"] for item in results}
    by_table = frozenset(name for name in tables if is_by_table(results, name, tables[name]))
    result = [_trained(item, across, warmup_workers(storage, item)) for item in results]
    return [replace(item, hardware=hardware, by_table=by_table) for item in result]


def tables_of(storage: Storage, job: str) -> dict[str, LatencyTable]:
    """Latency tables that a finished job searched with, by target."""
    results = _results(storage.sub(job))
    keys = {
        result["target"]: result["table_key"] for result in results if result["kind"] == "search"
    }
    return {
        name: LatencyTable.from_dict(storage.read_json(f"tables/{key}.json"))
        for name, key in keys.items()
    }


def _results(folder: Storage) -> list[dict[str, Any]]:
    places = sorted(key for key in folder.list("cases") if key.endswith("/result.json"))
    return [folder.read_json(place) for place in places]


def warmup_workers(storage: Storage, result: Mapping[str, Any]) -> int:
    """Workers that trained the warm-up, from its last checkpoint; 1 if there was no warm-up.

    A warm-up takes all workers of the cluster, so the number can differ from that of the case.
    """
    if result["warmup_key"] is None:
        return 1
    folder = storage.sub(f"warmups/{result['warmup_key']}")
    checkpoint = folder.read_json("end.json")["checkpoint"]
    return int(folder.read_json(f"{checkpoint}/state.json")["size"])


def _trained(
    result: Mapping[str, Any], across: Mapping[str, Mapping[str, float]], warmed_by: int
) -> Trained:
    key = result["architecture_hash"]
    return Trained(
        kind=result["kind"],
        name=model_name(dict(result)),
        own=result["target"],
        budget=None if result["budget"] is None else str(result["budget"]),
        budget_ms=result["budget_ms"],
        seed=int(result["seed"]),
        top1=100 * result["top1"],
        ms={name: known[key] for name, known in across.items() if key in known},
        warmup_s=result["warmup_s"] * warmed_by,
        search_s=result["search_s"] * result["workers"],
        retrain_s=result["retrain_s"] * result["workers"],
        ops=tuple(result["architecture"].get("ops", ())),
    )


def of_kind(networks: Iterable[Trained], kind: str, own: str | None = None) -> list[Trained]:
    """Networks of a kind, and of a target if one is named."""
    return [network for network in networks if network.kind == kind and own in (None, network.own)]


def seeds(networks: Iterable[Trained]) -> list[int]:
    """Seeds of the networks, sorted."""
    return sorted({network.seed for network in networks})


def pictured(networks: Iterable[Trained]) -> list[dict[str, Any]]:
    """Results in the form that the figure of a sweep takes: baselines on every target, other
    networks on their own. Latencies come from the run that timed all networks."""
    return [
        {
            "job": "",
            "case": f"{target}-{network.name}",
            "kind": network.kind,
            "target": target,
            "hardware": network.hardware[target],
            "budget": network.budget,
            "budget_ms": network.budget_ms,
            "measured_ms": None if target in network.by_table else network.ms[target],
            "table_ms": network.ms[target],
            "top1": network.top1 / 100,
            "seed": network.seed,
        }
        for network in networks
        for target in network.ms
        if network.own == target or network.kind == "baseline"
    ]
