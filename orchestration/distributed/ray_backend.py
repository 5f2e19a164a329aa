"""torch.distributed between the workers of a case, set up without torch in who only manages them.

A case has three large processes: its trial, Ray Train's controller and the worker. Ray's own
`TorchConfig` imports torch in all of them, which takes some 2 s of a core and 0.5 GB in each; here
only workers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from cluster.ray_internals import address_and_port, is_datasets_callback

SHUTDOWN_S = 30.0
"""As long as Ray's own waits for process groups to end."""


@dataclass
class LazyTorchBackend(BackendConfig):  # type: ignore[misc]  # ray has no types
    """In place of `ray.train.torch.TorchConfig`."""

    backend: str | None
    """Of torch.distributed; None: NCCL where workers have GPUs, else gloo."""
    timeout_s: int
    """Longest time for which workers wait for each other."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What sets workers up."""
        return ProcessGroups

    @property
    def train_func_context(self) -> Any:
        """Around the body of a worker."""
        return _own_device


class WorkerGroups(DataParallelTrainer):  # type: ignore[misc]
    """In place of `TorchTrainer`: without the actor that hands out parts of Ray data sets."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [one for one in callbacks if not is_datasets_callback(one)]


@contextmanager
def _own_device() -> Iterator[None]:
    from ray.train.torch import TorchConfig

    with TorchConfig().train_func_context():
        yield


class ProcessGroups(Backend):  # type: ignore[misc]  # ray has no types
    """Makes the workers of a group known to each other, in their own processes."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: LazyTorchBackend) -> None:
        """All workers are there; returns when they are connected.

        Ray Train (2.60) gives back what a worker group holds if its start fails, unless it is this
        step: then its placement group would stay until the driver ends, and others wait for room.
        """
        try:
            self._connect(worker_group, backend_config)
        except Exception:
            worker_group._clear_state()  # it counts as not started: Ray then ends its workers
            raise

    def _connect(self, worker_group: Any, backend_config: LazyTorchBackend) -> None:
        has_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        kind = backend_config.backend or ("nccl" if has_gpus else "gloo")
        place = worker_group.execute_single(0, address_and_port)
        size, timeout_s = len(worker_group), backend_config.timeout_s
        ray.get(
            [
                worker_group.execute_single_async(i, _join, i, size, kind, place, timeout_s)
                for i in range(size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: LazyTorchBackend) -> None:  # noqa: ARG002
        """The workers are going to end."""
        ends = worker_group.execute_async(_leave, len(worker_group) > 1)
        ray.wait(ends, num_returns=len(ends), timeout=SHUTDOWN_S)


def _join(rank: int, size: int, kind: str, place: tuple[str, int], timeout_s: int) -> None:
    import os

    from ray.train.torch import config

    if one := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", one)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = place[0], str(place[1])
    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(kind, rank, size, "env://", timeout_s)


def interface_of(address: str) -> str | None:
    """Name of the network interface with an address; None if there is none.

    Left to itself gloo listens where the name of the host leads, on Debian to 127.0.1.1: no other
    node finds it there. All of them found this node at its address in Ray.
    """
    import psutil

    for name, places in psutil.net_if_addrs().items():
        if address in (place.address for place in places):
            return name
    return None


def _leave(is_connected: bool) -> None:
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group=is_connected)
