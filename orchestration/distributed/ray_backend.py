"""Ray Train backend for torch.distributed that imports torch in the workers only.

A case has three large processes: its trial, Ray Train's controller and the worker. Ray's own
`TorchConfig` imports torch in all of them, which takes some 2 s of a core and 0.5 GB in each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from cluster.ray_internals import address_and_port, is_datasets_callback
from orchestration.distributed.thread_waiting import choose_waiting

SHUTDOWN_S = 30.0
"""Time to wait for process groups to end, seconds; the same as in Ray."""


@dataclass
class LazyTorchBackend(BackendConfig):  # type: ignore[misc]  # ray has no types
    """Replacement of `ray.train.torch.TorchConfig`."""

    backend: str | None
    """Backend of torch.distributed. None: NCCL if workers have GPUs, else gloo."""
    timeout_s: int
    """Longest time that workers wait for each other, seconds."""
    threads: int = 1
    """CPU threads per worker."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Class that sets up the workers."""
        return ProcessGroups

    @property
    def train_func_context(self) -> Any:
        """Context manager around the body of a worker."""
        return _own_device


class WorkerGroups(DataParallelTrainer):  # type: ignore[misc]
    """Replacement of `TorchTrainer`, without the actor that splits Ray data sets."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [each for each in callbacks if not is_datasets_callback(each)]


@contextmanager
def _own_device() -> Iterator[None]:
    from ray.train.torch import TorchConfig

    with TorchConfig().train_func_context():
        yield


class ProcessGroups(Backend):  # type: ignore[misc]  # ray has no types
    """Sets up torch.distributed between the workers of a group, in their own processes."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: LazyTorchBackend) -> None:
        """Connect the workers. Called when all of them are running.

        Ray Train (2.60) releases the resources of a worker group if its start fails, except in this
        step: its placement group would stay until the driver ends, and block other groups.
        """
        try:
            self._connect(worker_group, backend_config)
        except Exception:
            worker_group._clear_state()  # marks it as not started, so Ray ends its workers
            raise

    def _connect(self, worker_group: Any, backend_config: LazyTorchBackend) -> None:
        on_node = Counter(worker.metadata.node_id for worker in worker_group.get_workers())
        worker_group.execute(choose_waiting, backend_config.threads * max(on_node.values()))
        has_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        kind = backend_config.backend or ("nccl" if has_gpus else "gloo")
        address = worker_group.execute_single(0, address_and_port)
        size, timeout_s = len(worker_group), backend_config.timeout_s
        ray.get(
            [
                worker_group.execute_single_async(i, _join, i, size, kind, address, timeout_s)
                for i in range(size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: LazyTorchBackend) -> None:  # noqa: ARG002
        """Destroy the process group. Called before the workers end."""
        ends = worker_group.execute_async(_leave, len(worker_group) > 1)
        ray.wait(ends, num_returns=len(ends), timeout=SHUTDOWN_S)


def _join(rank: int, size: int, kind: str, address: tuple[str, int], timeout_s: int) -> None:
    import os

    from ray.train.torch import config

    if interface := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address[0], str(address[1])
    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(kind, rank, size, "env://", timeout_s)


def interface_of(address: str) -> str | None:
    """Name of the network interface with an address; None if there is none.

    By default gloo listens on the address that the host name resolves to. On Debian that is
    127.0.1.1, which other nodes cannot reach. They can reach the node's address in Ray.
    """
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if address in (known.address for known in addresses):
            return name
    return None


def _leave(is_connected: bool) -> None:
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group=is_connected)
