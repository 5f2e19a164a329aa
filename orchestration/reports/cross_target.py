"""Cross-target evaluation: the networks of every target measured on every target.

Only networks with the same budget are comparable: they are grouped by the text of their budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from cluster.storage import Storage
from nas_core.architecture import Architecture, Model
from nas_core.baselines.registry import model_from_dict
from nas_core.latency import LatencyTable
from orchestration.config.storage_layout import CROSS_TARGET_FORMAT, cross_target_file
from orchestration.state.result import Result


@dataclass(frozen=True, kw_only=True)
class Specialized:
    """A network and its latency on every target."""

    name: str
    asked: str | None
    """The budget as the job file gives it, e.g. "80%"; None if it was not searched for a budget."""
    own: str
    """The target it was searched for."""
    top1: float | None
    """Accuracy from 0 to 1; None if it was not retrained."""
    latencies_ms: Mapping[str, float | None]
    """Measured latency by target; None, or no entry, if it was not measured there."""


@dataclass(frozen=True)
class Matrix:
    """Latencies of specialized networks on targets.

    Raises:
        ValueError: a target or a name occurs twice, or a latency is not above 0.
    """

    targets: tuple[str, ...]
    """The columns."""
    networks: tuple[Specialized, ...]
    """The rows."""

    def __post_init__(self) -> None:
        names = [network.name for network in self.networks]
        for kind, listed in (("targets", list(self.targets)), ("networks", names)):
            if not listed or len(set(listed)) < len(listed):
                raise ValueError(f"the matrix has the {kind} {listed}; expected each name once")
        for network in self.networks:
            for target, ms in network.latencies_ms.items():
                if ms is not None and not (isfinite(ms) and ms > 0):
                    raise ValueError(
                        f"'{network.name}' takes {ms} ms on '{target}'; expected a number greater "
                        "than 0, or None where it was not measured"
                    )


@dataclass(frozen=True)
class Group:
    """Networks that are comparable with each other."""

    asked: str | None
    """The text of their budget; None for the last group, whose budgets occur on one target only."""
    networks: tuple[Specialized, ...]

    def fastest_ms(self, target: str) -> float | None:
        """The lowest latency on a target.

        None if fewer than two networks were measured there, or if the budgets of the group differ.
        """
        if self.asked is None:
            return None
        known = [
            ms for network in self.networks if (ms := network.latencies_ms.get(target)) is not None
        ]
        return min(known) if len(known) > 1 else None


def grouped(matrix: Matrix) -> list[Group]:
    """Networks grouped by the text of their budgets; spaces do not count: "80 %" equals "80%".

    Budgets that occur on a single target form the last group.
    """
    targets: dict[str, set[str]] = {}
    for network in matrix.networks:
        targets.setdefault(_budget_text(network), set()).add(network.own)
    shared = [text for text, owners in targets.items() if text and len(owners) > 1]
    groups = [
        Group(text, tuple(network for network in matrix.networks if _budget_text(network) == text))
        for text in shared
    ]
    others = tuple(network for network in matrix.networks if _budget_text(network) not in shared)
    return [*groups, Group(None, others)] if others else groups


def _budget_text(network: Specialized) -> str:
    return (network.asked or "").replace(" ", "")


def marked_best(matrix: Matrix) -> frozenset[tuple[str, str]]:
    """The fastest networks of each group on each target, as pairs (network, target).

    Several networks of equal latency are all marked. A network that is the only one of its group
    measured on a target is not marked there.
    """
    return frozenset(
        (network.name, target)
        for group in grouped(matrix)
        for target in matrix.targets
        for network in group.networks
        if (fastest_ms := group.fastest_ms(target)) is not None
        and network.latencies_ms.get(target) == fastest_ms
    )


Tables = Mapping[str, LatencyTable]


def specialized(results: Sequence[Result]) -> list[Result]:
    """Results of searched and given networks with sites."""
    return [
        result
        for result in results
        if result["kind"] in ("search", "given") and "ops" in result["architecture"]
    ]


def cross_target_latencies(
    results: Sequence[Result], tables: Tables, folder: Storage
) -> dict[str, dict[str, float]]:
    """Milliseconds, measured or by the table, by target and hash of the architecture.

    Networks that were not measured on a target that can be measured are left out, and so are
    networks on which its runtime fails.
    """
    latencies = dict[str, dict[str, float]]()
    networks = networks_by_hash(results)
    for name, table in tables.items():
        known = known_measurements(folder, name, table)
        if is_by_table(results, name, table):
            known = {
                key: {"ms": table.latency_ms(model)}
                for key, model in networks.items()
                if isinstance(model, Architecture) and model.space == table.space
            }
        latencies[name] = {
            key: measurement["ms"]
            for key, measurement in known.items()
            if measurement["ms"] is not None
        }
    return latencies


def is_by_table(results: Sequence[Result], target: str, table: LatencyTable) -> bool:
    """Whether latencies on a target come from its table, because nothing is measured there."""
    own = [result for result in results if result["target"] == target]
    is_read = bool(own) and all(result["measured_ms"] is None for result in own)
    return is_read or table.calibration is None


def networks_by_hash(results: Sequence[Result]) -> dict[str, Model]:
    """Networks by hash. Random networks are left out, since each represents many alike."""
    return {
        result["architecture_hash"]: model_from_dict(result["architecture"])
        for result in results
        if result["kind"] != "random"
    }


def known_measurements(
    folder: Storage, target: str, table: LatencyTable
) -> dict[str, dict[str, Any]]:
    """Stored measurements, if they were taken with the same latency of the reference network."""
    values = folder.find_json(cross_target_file(target)) or {}
    if values.get("format") != CROSS_TARGET_FORMAT or values["reference_ms"] != table.reference_ms:
        return {}
    networks: dict[str, dict[str, Any]] = values["networks"]
    return networks
