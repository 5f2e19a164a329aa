"""Everything that is taken from private modules of Ray (2.60), so that an update checks one file.

Each function says why nothing public does. Ray is imported in the functions: who imports this file
need not have it running, nor pay for its import. It lies in `cluster`, the lowest package that
needs one of them.
"""

from __future__ import annotations

from typing import Any


def dashboard_url() -> str:
    """Host and port of the dashboard of the connected cluster; empty if there is none.

    `ray.init` returns it, but not where Ray is connected already; nothing public tells it then.
    """
    import ray

    return ray._private.worker.global_worker.node.webui_url or ""


def gpus_of_this_machine() -> tuple[int, str | None]:
    """Number and type of the GPUs that a Ray started here would offer.

    Ray asks this when it starts, and it knows which GPUs this process may see; the public API
    tells resources only of a Ray that runs.
    """
    from ray._private.accelerators import get_accelerator_manager_for_resource

    known = get_accelerator_manager_for_resource("GPU")
    return known.get_current_node_num_accelerators(), known.get_current_node_accelerator_type()


def draining_nodes() -> dict[str, int]:
    """Nodes that are about to be taken away, by id, with the time at which they go.

    Nothing public tells it to one worker alone.
    """
    from ray._private.state import state

    nodes: dict[str, int] = state.get_draining_nodes()
    return nodes


def address_and_port() -> tuple[str, int]:
    """Address of this node and a free port on it, for the first worker of a process group.

    Ray's own `TorchConfig` asks it for the same purpose; the public API tells the address of a
    node, but finds no port.
    """
    from ray.train._internal.utils import get_address_and_port

    address: tuple[str, int] = get_address_and_port()
    return address


def is_datasets_callback(callback: Any) -> bool:
    """Whether a callback of a trainer starts the actor that hands out parts of Ray data sets.

    A trainer always has it, and no setting leaves it out.
    """
    from ray.train.v2._internal.callbacks import DatasetsCallback

    return isinstance(callback, DatasetsCallback)
