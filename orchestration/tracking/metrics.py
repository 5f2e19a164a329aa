"""A result as params and metrics: their names, values and moments, the same in every job.

What MLflow shows in columns, charts and parallel coordinates hangs on these names.
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
    """A number at a moment."""

    name: str
    value: float
    at_ms: int
    """Milliseconds since 1970."""
    step: int


def case_params(result: Mapping[str, object]) -> dict[str, str]:
    """What was asked for, and the network that came of it."""
    asked = {name: value_of(result, name) for name in PARAMS}
    return {name: str(value) for name, value in asked.items() if value is not None}


def final_values(names: Sequence[str], result: Result) -> list[Value]:
    """What was found, at the moment when the case was finished."""
    at_ms = finished_ms(result)
    found = {name: value_of(result, name) for name in names}
    return [
        Value(name, float(value), at_ms, 0) for name, value in found.items() if value is not None
    ]


def ranking_values(result: Result) -> list[Value]:
    """How well the supernet ranks networks: `ranking_spearman_accuracy` and the like."""
    ranking, at_ms = result.get("ranking") or {}, finished_ms(result)
    return [
        Value(f"ranking_{name}_{by}", float(value), at_ms, 0)
        for by in RANKED_BY
        for name, value in ranking.get(by, {}).items()
        if value is not None
    ]


def table_params(table: LatencyTable) -> dict[str, str]:
    """What was measured."""
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
    """How right a table is: `latency_mape`, or `tables/cpu_latency_mape` for a target of a job, and
    the like. What is before the slash is a section of charts in the UI."""
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
    """A value per number and epoch, named `<prefix>/<number>`; the step is the epoch."""
    epochs = [entry["epoch"] for entry in history]
    runs_on = len(set(epochs)) == len(epochs)  # else each phase counts from 0
    return [
        Value(f"{prefix}/{name}", float(value), int(entry["time"] * 1000), step)
        for step, entry in zip(epochs if runs_on else range(len(epochs)), history, strict=True)
        for name, value in entry.items()
        if name not in ("phase", "epoch", "time", "system") and value is not None
    ]


def run_values(facts: Mapping[str, Any]) -> list[Value]:
    """What each run of a job spent, and how right its plan was; of `job.json`. A step is a run."""
    return [
        Value(f"spent/{name}", float(value), moment_ms(run["started"]), step)
        for step, run in enumerate(facts.get("runs", ()))
        for name, value in _spent(run).items()
    ]


def _spent(run: Mapping[str, Any]) -> dict[str, float]:
    names = ("wall_s", "idle_share", "estimate_s", "took_s", "estimate_error")
    found = {name: run[name] for name in names if run.get(name) is not None}
    return found | {f"steps_{phase}": count for phase, count in run.get("steps", {}).items()}


def system_values(history: Sequence[Mapping[str, Any]]) -> list[Value]:
    """What the machine was at, under the names from which the UI makes its page of system
    metrics; the step is the epoch."""
    return [
        Value(f"system/{name}", float(value), int(entry["time"] * 1000), step)
        for step, entry in enumerate(history)
        for name, value in entry.get("system", {}).items()
    ]


def settings_params(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"search": {"epochs": 6}} -> {"search.epochs": "6"}; what is no text, as JSON."""
    params: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            params |= settings_params(value, f"{name}.")
        else:
            params[name] = value if isinstance(value, str) else json.dumps(value)
    return params


def started_ms(result: Result, histories: Sequence[str] = ("search", "retrain")) -> int:
    """When the first epoch of these histories began, milliseconds since 1970.

    Those of a warm-up do not count: it may have been trained long before, for other cases.
    """
    known = {"search": result["search_history"], "retrain": result["retrain_history"]}
    entries = [
        entry for name in histories for entry in known[name] if entry.get("phase") != "warmup"
    ]
    first = [int((entry["time"] - entry["seconds"]) * 1000) for entry in entries]
    return min([finished_ms(result), *first])


def finished_ms(result: Result) -> int:
    """When the case was done, milliseconds since 1970."""
    return moment_ms(result["finished"])


def moment_ms(iso: str) -> int:
    """An ISO 8601 time in milliseconds since 1970."""
    return int(datetime.fromisoformat(iso).timestamp() * 1000)
