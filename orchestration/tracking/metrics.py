"""Params and metrics of a result: names, values and timestamps, the same for every job.

Columns, charts and parallel coordinates of the MLflow UI depend on these names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestration.state.result import Result, value_of

if TYPE_CHECKING:
    from nas_core.latency import LatencyTable

PARAMS = ("target", "budget_ms", "strategy", "objective", "space", "architecture_hash", "seed")
MODEL_METRICS = ("table_ms", "measured_ms", "top1", "top5", "params", "macs")
COSTS = (
    *("warmup_s", "warmup_gpu_hours"),
    *("search_s", "search_gpu_hours"),
    *("retrain_s", "retrain_gpu_hours"),
)
CHECKS = ("measured_spread", "program_error", "expected_ms")
METRICS = (*MODEL_METRICS, *COSTS, *CHECKS, "total_stride")
RANKED_BY = ("accuracy", "cross_entropy")


class Value(NamedTuple):
    """A metric value with its timestamp and step."""

    name: str
    value: float
    at_ms: int
    """Timestamp, milliseconds since 1970."""
    step: int


def case_params(result: Mapping[str, object]) -> dict[str, str]:
    """Params of a case: its settings, and the hash of its architecture."""
    asked = {name: value_of(result, name) for name in PARAMS}
    return {name: str(value) for name, value in asked.items() if value is not None}


def final_values(names: Sequence[str], result: Result) -> list[Value]:
    """Metrics of a result, with the time at which the case finished."""
    at_ms = finished_ms(result)
    values = {name: value_of(result, name) for name in names}
    return [
        Value(name, float(value), at_ms, 0) for name, value in values.items() if value is not None
    ]


def ranking_values(result: Result) -> list[Value]:
    """Rank correlations of the supernet: `ranking_spearman_accuracy` and the like."""
    ranking, at_ms = result.get("ranking") or {}, finished_ms(result)
    return [
        Value(f"ranking_{name}_{by}", float(value), at_ms, 0)
        for by in RANKED_BY
        for name, value in ranking.get(by, {}).items()
        if value is not None
    ]


def table_params(table: LatencyTable) -> dict[str, str]:
    """Params of a latency table: target, device, runtime, space."""
    device = {f"device.{name}": str(value) for name, value in table.device.items()}
    return {
        "target": table.target,
        "hardware": table.hardware,
        "runtime": f"{table.runtime} {table.runtime_version}".strip(),
        "space": table.space.name,
        "resolution": str(table.space.resolution),
        **device,
    }


def table_values(table: LatencyTable, target: str = "") -> list[Value]:
    """Accuracy of a table: `latency_mape` and the like, `tables/cpu_latency_mape` with a target.

    The part before the slash is a section of charts in the UI.
    """
    at_ms = moment_ms(table.date) if table.date else 0
    spreads = sorted(row.spread for row in table.rows)
    figures = {
        "latency_scale": table.scale,
        "latency_offset_ms": table.offset_ms,
        "latency_overhead_ms": table.overhead_ms,
        "latency_row_spread": spreads[len(spreads) // 2],
        "latency_row_spread_p90": spreads[9 * len(spreads) // 10],
    }
    known = table.calibration
    if known is not None and known.errors is not None:
        figures |= {f"latency_{name}": value for name, value in asdict(known.errors).items()}
    start = f"tables/{target}_" if target else ""
    return [Value(f"{start}{name}", float(value), at_ms, 0) for name, value in figures.items()]


def curves(prefix: str, history: Sequence[Mapping[str, Any]]) -> list[Value]:
    """A metric `<prefix>/<name>` per quantity and epoch; the step is the epoch."""
    epochs = [entry["epoch"] for entry in history]
    is_continuous = len(set(epochs)) == len(epochs)  # otherwise each phase counts from 0
    return [
        Value(f"{prefix}/{name}", float(value), int(entry["time"] * 1000), step)
        for step, entry in zip(
            epochs if is_continuous else range(len(epochs)), history, strict=True
        )
        for name, value in entry.items()
        if name not in ("phase", "epoch", "time", "system") and value is not None
    ]


def run_values(facts: Mapping[str, Any]) -> list[Value]:
    """Time of each run of a job, and the error of its plan's estimate; the step is the run.

    Args:
        facts: content of `job.json`.
    """
    return [
        Value(f"spent/{name}", float(value), moment_ms(run["started"]), step)
        for step, run in enumerate(facts.get("runs", ()))
        for name, value in _spent(run).items()
    ]


def _spent(run: Mapping[str, Any]) -> dict[str, float]:
    names = ("wall_s", "idle_share", "estimate_s", "took_s", "estimate_error")
    values = {name: run[name] for name in names if run.get(name) is not None}
    return values | {f"steps_{phase}": count for phase, count in run.get("steps", {}).items()}


def system_values(history: Sequence[Mapping[str, Any]]) -> list[Value]:
    """System metrics, under the names that the UI expects; the step is the epoch."""
    return [
        Value(f"system/{name}", float(value), int(entry["time"] * 1000), step)
        for step, entry in enumerate(history)
        for name, value in entry.get("system", {}).items()
    ]


def settings_params(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flattened settings: {"search": {"epochs": 6}} -> {"search.epochs": "6"}, values as JSON."""
    params: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            params |= settings_params(value, f"{name}.")
        else:
            params[name] = value if isinstance(value, str) else json.dumps(value)
    return params


def started_ms(result: Result, histories: Sequence[str] = ("search", "retrain")) -> int:
    """Start of the first epoch of these histories, milliseconds since 1970.

    Epochs of a warm-up do not count: it may have been trained long before, for other cases.
    """
    known = {"search": result["search_history"], "retrain": result["retrain_history"]}
    entries = [
        entry for name in histories for entry in known[name] if entry.get("phase") != "warmup"
    ]
    first = [int((entry["time"] - entry["seconds"]) * 1000) for entry in entries]
    return min([finished_ms(result), *first])


def finished_ms(result: Result) -> int:
    """Time at which the case finished, milliseconds since 1970."""
    return moment_ms(result["finished"])


def moment_ms(iso: str) -> int:
    """An ISO 8601 timestamp in milliseconds since 1970."""
    return int(datetime.fromisoformat(iso).timestamp() * 1000)
