"""Networks of every target measured on every target: which is the best where.

Networks compare only where the same was asked for: they are grouped by the words of their budgets.
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
    """A network and what it takes on every target."""

    name: str
    asked: str | None
    """Its budget in the words of the job, e.g. "80%"; None for what was searched for none."""
    own: str
    """The target that it was searched for."""
    top1: float | None
    """0 to 1; None where it was not trained."""
    latencies_ms: Mapping[str, float | None]
    """As measured, by target; None, or no entry, where it was not measured."""


@dataclass(frozen=True)
class Matrix:
    """Networks on targets, as in "hardware prefers specialized models".

    Raises:
        ValueError: a target or a name stands there twice, or a latency is not above 0.
    """

    targets: tuple[str, ...]
    """The columns."""
    networks: tuple[Specialized, ...]
    """The rows."""

    def __post_init__(self) -> None:
        names = [network.name for network in self.networks]
        for what, found in (("targets", list(self.targets)), ("networks", names)):
            if not found or len(set(found)) < len(found):
                raise ValueError(f"the matrix has the {what} {found}; expected each name once")
        for network in self.networks:
            for target, ms in network.latencies_ms.items():
                if ms is not None and not (isfinite(ms) and ms > 0):
                    raise ValueError(
                        f"'{network.name}' takes {ms} ms on '{target}'; expected a number greater "
                        "than 0, or None where it was not measured"
                    )


@dataclass(frozen=True)
class Group:
    """Networks that compare with each other."""

    asked: str | None
    """The words of their budget; None for the last group, whose networks share theirs with none."""
    networks: tuple[Specialized, ...]

    def fastest_ms(self, target: str) -> float | None:
        """The lowest latency on a target; None where fewer than two were measured there, or where
        other things were asked for."""
        if self.asked is None:
            return None
        known = [ms for one in self.networks if (ms := one.latencies_ms.get(target)) is not None]
        return min(known) if len(known) > 1 else None


def grouped(matrix: Matrix) -> list[Group]:
    """Networks of several targets that were asked for in the same words; last all others.

    Words are the same whatever their spaces are: "80 %" and "80%".
    """
    targets: dict[str, set[str]] = {}
    for one in matrix.networks:
        targets.setdefault(_words(one), set()).add(one.own)
    shared = [words for words, owners in targets.items() if words and len(owners) > 1]
    groups = [
        Group(words, tuple(one for one in matrix.networks if _words(one) == words))
        for words in shared
    ]
    others = tuple(one for one in matrix.networks if _words(one) not in shared)
    return [*groups, Group(None, others)] if others else groups


def _words(network: Specialized) -> str:
    return (network.asked or "").replace(" ", "")


def marked_best(matrix: Matrix) -> frozenset[tuple[str, str]]:
    """Which cells are the best of their column within their group: (network, target).

    The best takes least time; several are best if they take equally long. A network that nothing
    in its group can be compared with on a target is not marked there.
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
    """Networks of sites, the reference left out: those that were searched or given."""
    return [
        one
        for one in results
        if one["kind"] in ("search", "given") and "ops" in one["architecture"]
    ]


def cross_target_latencies(
    results: Sequence[Result], tables: Tables, folder: Storage
) -> dict[str, dict[str, float]]:
    """By target, by hash of an architecture: milliseconds, measured or by the table.

    A target that can be measured and was not is left out, and so is a network with which its
    runtime fails.
    """
    found = dict[str, dict[str, float]]()
    networks = _models(results)
    for name, table in tables.items():
        known = _known(folder, name, table)
        if is_by_table(results, name, table):
            known = {
                key: {"ms": table.latency_ms(model)}
                for key, model in networks.items()
                if isinstance(model, Architecture) and model.space == table.space
            }
        found[name] = {key: one["ms"] for key, one in known.items() if one["ms"] is not None}
    return found


def is_by_table(results: Sequence[Result], target: str, table: LatencyTable) -> bool:
    """Whether nothing is measured on a target, so that its latency table is all there is."""
    own = [one for one in results if one["target"] == target]
    is_read = bool(own) and all(one["measured_ms"] is None for one in own)
    return is_read or table.calibration is None


def _models(results: Sequence[Result]) -> dict[str, Model]:
    """By hash; the random networks of controls left out, which stand for others like them."""
    return {
        one["architecture_hash"]: model_from_dict(one["architecture"])
        for one in results
        if one["kind"] != "random"
    }


def _known(folder: Storage, target: str, table: LatencyTable) -> dict[str, dict[str, Any]]:
    """What was measured beside the same reference network."""
    values = folder.find_json(cross_target_file(target)) or {}
    if values.get("format") != CROSS_TARGET_FORMAT or values["reference_ms"] != table.reference_ms:
        return {}
    networks: dict[str, dict[str, Any]] = values["networks"]
    return networks
