"""What a finished job knows of its networks, each with its latency on all of the job's targets.

Latencies that are compared come from one run that timed all networks against each other (the job's
`across/`), not from the minutes in which each was trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.storage import Storage
from orchestration.result_values import model_name


@dataclass(frozen=True)
class Trained:
    """A network that was trained alone and measured."""

    kind: str
    """"search", "baseline", "reference" or "given"."""
    name: str
    """Of a baseline; of others their case, without the seed."""
    own: str
    """The target that it was searched for."""
    budget: str | None
    """In the words of the job."""
    seed: int
    top1: float
    """Percent."""
    ms: Mapping[str, float]
    """By target."""
    warmup_s: float
    search_s: float
    retrain_s: float
    ops: tuple[str, ...]
    """Empty for a baseline."""


def trained(job_folder: Storage, targets: Sequence[str]) -> list[Trained]:
    """Networks of a finished job.

    Raises:
        KeyError: one was not measured on a target.
    """
    across = {name: job_folder.read_json(f"across/{name}.json")["networks"] for name in targets}
    places = sorted(key for key in job_folder.list("cases/") if key.endswith("/result.json"))
    return [_trained(job_folder.read_json(place), across) for place in places]


def _trained(result: Mapping[str, Any], across: Mapping[str, Mapping[str, Any]]) -> Trained:
    return Trained(
        kind=result["kind"],
        name=model_name(dict(result)),
        own=result["target"],
        budget=None if result["budget"] is None else str(result["budget"]),
        seed=int(result["seed"]),
        top1=100 * result["top1"],
        ms={name: known[result["architecture_hash"]]["ms"] for name, known in across.items()},
        warmup_s=result["warmup_s"],
        search_s=result["search_s"],
        retrain_s=result["retrain_s"],
        ops=tuple(result["architecture"].get("ops", ())),
    )


def of_kind(networks: Iterable[Trained], kind: str, own: str | None = None) -> list[Trained]:
    """Those of a kind, and of a target if one is named."""
    return [one for one in networks if one.kind == kind and own in (None, one.own)]


def seeds(networks: Iterable[Trained]) -> list[int]:
    """In their order."""
    return sorted({one.seed for one in networks})
