"""The content of a `result.json`: everything about a finished network.

Keys stay as they are, since results of any age are read. Keys that are not required are missing in
results of older versions, or wherever the step that writes them did not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from orchestration.planning.content_keys import Parts

Epochs = list[dict[str, Any]]
"""Reports of a stage, one for each epoch."""


class Latencies(TypedDict):
    """Latency of a network in milliseconds."""

    table_ms: float | None
    """Latency by the table; None if the network is not a member of the space."""
    measured_ms: float | None
    """Measured latency; None on a target that is not measured."""


class Scored(Latencies):
    """Numbers by which searched networks are compared."""

    budget_ms: float | None
    """Budget of the case; None without one."""
    top1: float | None
    """Accuracy on the test images, 0 to 1; None if the network was not retrained."""


class AskedFor(TypedDict):
    """The case that the result belongs to."""

    format: str
    key: str
    job: str
    case: str
    kind: str
    target: str
    hardware: str
    stand_in: bool
    budget: str | float | None
    """Budget as given in the job file, e.g. "80%", or milliseconds."""
    budget_ms: float | None
    strategy: str | None
    objective: str | None
    table_key: str
    seed: NotRequired[int]
    warmup_key: NotRequired[str | None]
    search_key: NotRequired[str | None]
    search_ms: NotRequired[float | None]
    parts: NotRequired[Parts]


class FoundNetwork(Latencies):
    """The network, and its latency after derivation."""

    space: str | None
    """Name of the search space; None for a baseline."""
    architecture_hash: str
    architecture: dict[str, Any]
    measured_spread: float | None
    tries: list[dict[str, float | None]]
    params: int
    macs: int
    total_stride: NotRequired[int]


class Costs(TypedDict):
    """Seconds and GPU hours. A warm-up's are shared by all searches that start from it."""

    search_s: float
    search_gpu_hours: float
    retrain_s: float
    retrain_gpu_hours: float
    warmup_s: NotRequired[float]
    warmup_gpu_hours: NotRequired[float]


class Images(TypedDict):
    """Input format of the network, and its classes."""

    classes: list[str]
    input_shape: list[int]
    mean: list[float]
    std: list[float]


class SearchFacts(TypedDict):
    """Facts that only searches and their random networks have."""

    notes: NotRequired[list[str]]
    expected_ms: NotRequired[float | None]
    trials: NotRequired[dict[str, Any] | None]
    supernet_weights: NotRequired[str]
    ranking: NotRequired[dict[str, Any] | None]
    rerank: NotRequired[dict[str, Any] | None]
    random: NotRequired[dict[str, Any]]


class Program(TypedDict):
    """Facts of the program of a trained network; empty if the target is not measured."""

    program_error: NotRequired[float]
    measured_ms: NotRequired[float]
    measured_spread: NotRequired[float]
    measured_drift: NotRequired[float]


class Training(TypedDict):
    """Facts of a retraining."""

    test_loss: NotRequired[float]
    tested: NotRequired[int]
    retrained_weights: NotRequired[str]
    trained_with: NotRequired[str]
    """Name of the case that trained the network, if it was another one."""


class Retrained(Training, Program):
    """Outcome of a retraining; empty if there was none."""

    top1: NotRequired[float]
    top5: NotRequired[float]
    retrain_history: NotRequired[Epochs]


class Result(AskedFor, FoundNetwork, Costs, Images, SearchFacts, Training):
    """The content of a `result.json`."""

    top1: float | None
    top5: float | None
    search_history: Epochs
    retrain_history: Epochs
    finished: str
    """Time at which the case finished, ISO 8601 in UTC."""
    program_error: NotRequired[float]
    measured_drift: NotRequired[float]
    workers: NotRequired[int]
    alphas: NotRequired[list[str]]


def value_of(result: Mapping[str, object], name: str) -> Any:
    """A field by name; None if the result does not have it. For code that loops over fields."""
    return result.get(name)
