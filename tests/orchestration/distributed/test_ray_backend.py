"""A worker group that fails to start, tested with Ray's own class but without a running Ray."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train.v2._internal.execution.worker_group import worker_group as ray_groups

from orchestration.distributed.ray_backend import LazyTorchBackend, interface_of
from tests.conftest import REPOSITORY


class Group(ray_groups.WorkerGroup):  # type: ignore[misc]  # ray has no types
    """A group whose workers start, but cannot connect to each other."""

    def __init__(self) -> None:
        self.ended = False

    def _start_impl(self, builder: Any) -> None:
        builder.shutdown = self._end
        self._worker_group_state, self._replica_groups = object(), []
        self._world_rank_to_ongoing_poll: dict[int, Any] = {}
        config = LazyTorchBackend(backend="gloo", timeout_s=7)
        config.backend_cls().on_start(self, config)

    def _end(self) -> None:
        self.ended = True

    def get_resources_per_worker(self) -> dict[str, float]:
        return {}

    def get_workers(self) -> list[Any]:
        return [SimpleNamespace(metadata=SimpleNamespace(node_id="here"))]

    def execute(self, *_: Any) -> list[Any]:
        return []

    def execute_single(self, *_: Any) -> Any:
        raise RuntimeError("no port is free")


def test_a_group_whose_workers_do_not_find_each_other_gives_its_room_back() -> None:
    group = Group()
    with pytest.raises(RuntimeError, match="no port is free"):
        group._start()
    assert group.ended


@pytest.mark.slow
def test_who_only_manages_workers_needs_no_torch() -> None:
    code = (
        "import sys, orchestration.driver.trials, orchestration.distributed.ray_backend;"
        "import ray.tune, ray.train;"
        "print('torch' in sys.modules)"
    )
    args = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(args, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "False"


def test_the_network_interface_is_the_one_with_the_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None  # reserved for documentation
