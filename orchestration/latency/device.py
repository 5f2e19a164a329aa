"""Which device a latency table was measured on, and whether that is the one that is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.hardware import Target
from cluster.placement import Node, node_for, nodes
from cluster.runtimes.base import MeasurementError
from nas_core.latency import LatencyTable
from orchestration.programs.timing_workers import target_facts

IDENTITY = ("cpu", "gpu", "phone", "soc", "machine")
"""Facts that tell one device from another."""


def identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What tells this device from another, of its facts."""
    return {name: facts[name] for name in IDENTITY if name in facts}


def is_same_device(table: LatencyTable, facts: Mapping[str, Any]) -> bool:
    """Whether a table was measured on a device like the one with these facts."""
    return identity(table.device) == identity(facts)


def check_same_device(table: LatencyTable, target: Target, place: str) -> None:
    """Refuse a table that was measured on another device than the one that is there now.

    Args:
        table: from storage.
        target: what it is of.
        place: where it is kept.

    Raises:
        MeasurementError: it is another.
    """
    facts = target_facts(target, node_of(table, target))
    if not is_same_device(table, facts):
        then, now = (", ".join(map(str, identity(x).values())) for x in (table.device, facts))
        raise MeasurementError(
            f"the table of '{target.name}' was measured on {then}, and now there is {now}; remove "
            f"{place} to measure that, or say under targets.{target.name}.resources which is meant"
        )


def node_of(table: LatencyTable, target: Target) -> Node:
    """Where the table was measured, if that node is there; else one that has the target."""
    there = nodes()
    same = [node for node in there if node.host == table.device.get("host")]
    return node_for(target, [*same, *there])
