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
    """Latency by the table; None if the network is no member of the space."""
    measured_ms: float | None
    """None on a target that is not measured."""


class Scored(Latencies):
    """Figures by which searched networks compare."""

    budget_ms: float | None
    """None if the case has no budget."""
    top1: float | None
    """Fraction of the test images; None if the network was not trained."""


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
    """Budget in the words of the job file, e.g. "80%"; or milliseconds."""
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
    """The network, and its latency when it was found."""

    space: str | None
    """None for a baseline."""
    architecture_hash: str
    architecture: dict[str, Any]
    measured_spread: float | None
    tries: list[dict[str, float | None]]
    params: int
    macs: int
    total_stride: NotRequired[int]


class Costs(TypedDict):
    """Seconds and GPU hours; those of a warm-up are shared by all searches that start from it."""

    search_s: float
    search_gpu_hours: float
    retrain_s: float
    retrain_gpu_hours: float
    warmup_s: NotRequired[float]
    warmup_gpu_hours: NotRequired[float]


class Images(TypedDict):
    """The images that the network takes, and its classes."""

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
    """Facts of the program of a trained network; none where nothing is measured."""

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
    """ISO 8601, UTC."""
    program_error: NotRequired[float]
    measured_drift: NotRequired[float]
    workers: NotRequired[int]
    alphas: NotRequired[list[str]]


def value_of(result: Mapping[str, object], name: str) -> Any:
    """A field by its name, for tables of fields; None if the result does not have it."""
    return result.get(name)
