"""Compare the device of a latency table with the device that is present."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.hardware import Target
from cluster.placement import Node, node_for, nodes
from cluster.runtimes.base import MeasurementError
from nas_core.latency import LatencyTable
from orchestration.programs.timing_workers import target_facts

IDENTITY = ("cpu", "gpu", "phone", "soc", "machine")
"""Names of the facts that identify a device."""


def identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts that identify a device."""
    return {name: facts[name] for name in IDENTITY if name in facts}


def is_same_device(table: LatencyTable, facts: Mapping[str, Any]) -> bool:
    """Whether a table was measured on a device with the same identity."""
    return identity(table.device) == identity(facts)


def check_same_device(table: LatencyTable, target: Target, path: str) -> None:
    """Check that a table was measured on the device that is present now.

    Args:
        table: table from storage.
        target: target of the table.
        path: path of the table, for the message.

    Raises:
        MeasurementError: the device differs.
    """
    facts = target_facts(target, node_of(table, target))
    if not is_same_device(table, facts):
        then, now = (", ".join(map(str, identity(x).values())) for x in (table.device, facts))
        raise MeasurementError(
            f"the table of '{target.name}' was measured on {then}, and now there is {now}; remove "
            f"{path} to measure that, or say under targets.{target.name}.resources which is meant"
        )


def node_of(table: LatencyTable, target: Target) -> Node:
    """Node on which the table was measured, if it is present; else a node with the target."""
    there = nodes()
    same = [node for node in there if node.host == table.device.get("host")]
    return node_for(target, [*same, *there])
