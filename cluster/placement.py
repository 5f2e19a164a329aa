"""Placement of measurements: finds the node for a target and reserves its cores."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.hardware import Target, usable_cores
from cluster.ray_internals import gpus_of_this_machine
from cluster.storage import Storage

ACCELERATOR_LABEL = "ray.io/accelerator-type"
"""Label that Ray gives to nodes with a known GPU, e.g. `H100`."""

MARKET_LABEL, SPOT = "ray.io/market-type", "spot"
"""Label of preemptible nodes, set when a node is started."""

ANSWER_S = 60.0
"""Time for a node to answer whether it sees a file."""

LOG_AFTER_S = 5.0
"""Time until a log line says what a measurement waits for."""


class PlacementError(Exception):
    """No node of the cluster has what a target needs."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    host: str
    resources: Mapping[str, float]
    """Total resources, by Ray's names."""
    labels: Mapping[str, str]
    is_driver: bool
    """Whether this process runs there."""

    def offers(self, target: Target) -> bool:
        """Whether the node has all resources and labels that the target requires."""
        has_resources = all(
            self.resources.get(name, 0.0) >= amount for name, amount in target.resources.items()
        )
        return has_resources and all(
            self.labels.get(name) == value for name, value in target.labels.items()
        )

    def text(self) -> str:
        """Text such as `10.0.0.5 (16 CPU, 1 GPU, label zone=a)`."""
        shown = [
            f"{amount:g} {name}"
            for name, amount in sorted(self.resources.items())
            if not name.startswith(("node:", "memory", "object_store_memory"))
        ]
        own = (item for item in self.labels.items() if not item[0].startswith("ray.io/node"))
        labels = [f"label {name}={value}" for name, value in sorted(own)]
        return f"{self.host} ({', '.join([*shown, *labels])})"


def nodes() -> list[Node]:
    """Alive machines of the Ray cluster that this process is connected to, the driver's first."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    alive = [
        Node(
            id=node["NodeID"],
            host=node["NodeManagerAddress"],
            resources=node["Resources"],
            labels=node.get("Labels") or {},
            is_driver=node["NodeID"] == here,
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(alive, key=lambda node: not node.is_driver)


def this_machine() -> Node:
    """Description of this machine, as a Ray cluster started on it would give it."""
    resources = {"CPU": float(usable_cores())}
    labels: dict[str, str] = {}
    if any(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia*")):
        count, kind = gpus_of_this_machine()
        resources |= {"GPU": float(count)} if count else {}
        labels |= {ACCELERATOR_LABEL: kind} if count and kind else {}
    return Node(id="", host="this machine", resources=resources, labels=labels, is_driver=True)


def steady_selector(among: Sequence[Node]) -> dict[str, str]:
    """Labels that select nodes which are not preemptible, for work that should not be lost.

    Empty if no node is labelled as preemptible, or all are.
    """
    is_spot = [node.labels.get(MARKET_LABEL) == SPOT for node in among]
    return {MARKET_LABEL: f"!{SPOT}"} if any(is_spot) and not all(is_spot) else {}


def node_for(target: Target, among: Sequence[Node]) -> Node:
    """The node that a target is measured on; the driver's own if it qualifies.

    Raises:
        PlacementError: no node qualifies; the message lists the nodes of the cluster.
    """
    offering = [node for node in among if node.offers(target)]
    if offering:
        return offering[0]
    needs = [f"{amount:g} {name}" for name, amount in target.resources.items()]
    needs += [f"label {name}={value}" for name, value in target.labels.items()]
    has = "; ".join(node.text() for node in among) or "nothing"
    raise PlacementError(
        f"target '{target.name}' needs a node with {', '.join(needs)}; the cluster has {has}: "
        f"add such a node, or change targets.{target.name}"
    )


@contextmanager
def cores_reserved(node: Node, log: Callable[[str], None]) -> Iterator[None]:
    """Reserve all cores and GPUs of a node while the block runs, so that nothing trains there.

    Waits until they are free.

    Args:
        node: the node to reserve.
        log: called with a message if the wait is long.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options: dict[str, Any] = {
        "num_cpus": node.resources.get("CPU", 0.0),
        "num_gpus": node.resources.get("GPU", 0.0),
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
    }
    holder = ray.remote(_Holder).options(**options).remote()
    try:
        ready = holder.ready.remote()
        done, _ = ray.wait([ready], timeout=LOG_AFTER_S)
        if not done:
            log(f"waiting for all cores of {node.host}: latencies are measured on an idle node")
        ray.get(ready)
        yield
    finally:
        ray.kill(holder)


def blind_nodes(storage: Storage, among: Sequence[Node]) -> list[Node]:
    """Nodes that do not see what this process writes into a storage, as they do not share it.

    Nodes that do not answer in time are left out.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    others = [node for node in among if not node.is_driver]
    if not storage.is_local or not others:
        return []
    key = f"probes/{uuid.uuid4().hex}"
    storage.write_bytes(key, b"")
    try:
        node_by_ref = {
            ray.remote(_sees)
            .options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            )
            .remote(str(storage.path(key))): node
            for node in others
        }
        answered, _ = ray.wait(list(node_by_ref), num_returns=len(node_by_ref), timeout=ANSWER_S)
        return [node_by_ref[ref] for ref in answered if not ray.get(ref)]
    finally:
        storage.delete("probes")


def _sees(path: str) -> bool:
    """Look for a file from another node; listing the folder refreshes a network file system."""
    folder = os.path.dirname(path)
    return os.path.isdir(folder) and os.path.basename(path) in os.listdir(folder)


class _Holder:
    """Actor that occupies its reserved resources and does nothing."""

    def ready(self) -> bool:
        """Return once the resources are reserved."""
        return True
