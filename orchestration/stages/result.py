"""The result of a case: all facts about a finished network, in a file that is written last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cluster.storage import Storage
from nas_core.architecture import Architecture
from orchestration.config.storage_layout import (
    ARCHITECTURE_FILE,
    MODEL,
    PROBABILITIES_FILE,
    PROBABILITIES_FORMAT,
    RESULT_FILE,
    RESULT_FORMAT,
)
from orchestration.latency.tolerance import over_budget
from orchestration.planning.case import BudgetCase, Case, SearchCase
from orchestration.planning.named_models import total_stride
from orchestration.stages.candidate import Candidate
from orchestration.stages.context import WorkerContext
from orchestration.stages.network_log import finite
from orchestration.state.result import AskedFor, Costs, FoundNetwork, Images, Result, Retrained


def write_result(
    context: WorkerContext, case: Case, candidate: Candidate, outcome: Retrained
) -> None:
    """Write `architecture.json` and then `result.json`.

    Args:
        context: the first worker writes, the others wait.
        case: finished case.
        candidate: network of the case with its latency.
        outcome: of its retraining; empty where there was none.
    """
    if context.group.rank == 0:
        text = json.dumps(candidate.model.to_dict(), indent=1) + "\n"
        context.storage.write_text(f"{case.folder}/{ARCHITECTURE_FILE}", text)
        _write_or_delete(
            context.storage, f"{case.folder}/{PROBABILITIES_FILE}", probabilities(candidate)
        )
        if not outcome:
            context.storage.delete(f"{case.folder}/{MODEL}")  # of an earlier result
        values = finite(result_of(context, case, candidate, outcome))
        context.storage.write_json(f"{case.folder}/{RESULT_FILE}", values)
    context.group.barrier()


def _write_or_delete(storage: Storage, key: str, values: dict[str, Any] | None) -> None:
    """Write a file, or delete that of an earlier result if there are no values."""
    if values is None:
        storage.delete(key)
    else:
        storage.write_json(key, values)


def result_of(
    context: WorkerContext, case: Case, candidate: Candidate, outcome: Retrained
) -> Result:
    """The content of `result.json`."""
    measured_ms = outcome.get("measured_ms", candidate.measured_ms)
    missed = over_budget(measured_ms, case.limit_ms, len(candidate.tries))
    notes = [*candidate.search.get("notes", []), *([] if missed is None else [missed])]
    return {
        **_asked(context, case),
        **_network(candidate),
        **_costs(context, candidate, outcome),
        "workers": context.group.size,
        "alphas": candidate.alphas,
        "search_history": [_without(epoch, "probs") for epoch in candidate.history],
        **candidate.search,
        "notes": notes,
        **_images(context),
        "top1": None,
        "top5": None,
        "retrain_history": [],
        **outcome,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def probabilities(candidate: Candidate) -> dict[str, Any] | None:
    """Op probabilities of a search by epoch: the content of `probabilities.json`.

    They have their own file to keep `result.json`, which every comparison reads, small.
    """
    epochs = [
        {"epoch": item["epoch"], "probs": [[round(p, 5) for p in site] for site in item["probs"]]}
        for item in candidate.history
        if item.get("probs") is not None
    ]
    if not epochs or not isinstance(candidate.model, Architecture):
        return None
    sites = candidate.model.space.sites
    return {
        "format": PROBABILITIES_FORMAT,
        "sites": [site.name for site in sites],
        "ops": [list(site.ops) for site in sites],
        "epochs": epochs,
    }


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _asked(context: WorkerContext, case: Case) -> AskedFor:
    job = context.task.job
    is_search = isinstance(case, SearchCase)
    return {
        "format": RESULT_FORMAT,
        "key": case.key,
        "job": job.name,
        "case": case.name,
        "kind": case.kind,
        "target": case.target,
        "hardware": context.table.hardware,
        "stand_in": context.target.stand_in,
        "budget": case.budget if isinstance(case, BudgetCase) else None,
        "budget_ms": case.limit_ms,
        "strategy": job.search.strategy if is_search else None,
        "objective": job.search.objective_name if is_search else None,
        "seed": job.seed,
        "table_key": case.table_key,
        "warmup_key": case.warmup_key,
        "search_key": case.search_key,
        "search_ms": case.search_ms if isinstance(case, SearchCase) else None,
        "parts": case.parts,
    }


def _network(candidate: Candidate) -> FoundNetwork:
    model = candidate.model
    return {
        "space": model.space.name if isinstance(model, Architecture) else None,
        "architecture_hash": model.digest(),
        "architecture": model.to_dict(),
        "table_ms": candidate.table_ms,
        "measured_ms": candidate.measured_ms,
        "measured_spread": candidate.measured_spread,
        "tries": candidate.tries,
        "params": model.num_params(),
        "macs": model.macs(),
        "total_stride": total_stride(model),
    }


def _costs(context: WorkerContext, candidate: Candidate, outcome: Retrained) -> Costs:
    """Seconds and GPU hours. The warm-up's are shared by all searches that start from it."""
    warm = [epoch for epoch in candidate.history if epoch["phase"] == "warmup"]
    own = [epoch for epoch in candidate.history if epoch["phase"] != "warmup"]
    trained = outcome.get("retrain_history", [])
    random_s = candidate.search.get("random", {}).get("seconds", 0.0)
    random_hours = random_s * context.group.size * context.task.gpus / 3600
    return {
        "warmup_s": _seconds(warm),
        "warmup_gpu_hours": _gpu_hours(warm),
        "search_s": _seconds(own) + random_s,
        "search_gpu_hours": _gpu_hours(own) + random_hours,
        "retrain_s": _seconds(trained),
        "retrain_gpu_hours": _gpu_hours(trained),
    }


def _seconds(epochs: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(epoch["seconds"] for epoch in epochs))


def _gpu_hours(epochs: Sequence[Mapping[str, Any]]) -> float:
    """GPU hours, with the number of GPUs that trained each epoch."""
    return float(sum(epoch["seconds"] * epoch["gpus"] for epoch in epochs)) / 3600


def _images(context: WorkerContext) -> Images:
    data = context.dataset
    return {
        "classes": list(data.classes),
        "input_shape": list(data.shape),
        "mean": list(data.mean),
        "std": list(data.std),
    }
