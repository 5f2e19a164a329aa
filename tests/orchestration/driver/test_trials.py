"""Several nodes: trials run on nodes that are not preemptible, and storage has to be shared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.head import free_port
from cluster.storage import Storage
from orchestration.config.loading import SpecError
from orchestration.driver.session import _check_shared
from orchestration.driver.trials import worker_environment


@pytest.fixture
def spot_and_steady() -> Iterator[dict[str, str]]:
    """Ids of the two nodes of a Ray cluster whose head is preemptible."""
    import ray
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    dashboard = {"include_dashboard": True, "dashboard_port": free_port()}
    label = "ray.io/market-type"
    cluster: Any = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "labels": {label: "spot"}, **dashboard}
    )
    steady = cluster.add_node(num_cpus=1, labels={label: "on-demand"})
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        yield {"spot": cluster.head_node.node_id, "steady": steady.node_id}
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trials_keep_off_preemptible_nodes(spot_and_steady: dict[str, str]) -> None:
    import ray
    from ray.util.placement_group import placement_group_table

    from orchestration.driver.trials import _trial_resources

    for _ in range(4):
        group = _trial_resources().to_placement_group()
        ray.get(group.ready(), timeout=60)
        nodes = placement_group_table(group)["bundles_to_node_id"].values()
        assert set(nodes) == {spot_and_steady["steady"]}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_folder_that_another_node_does_not_see_is_refused(
    spot_and_steady: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _check_shared(Storage(str(tmp_path / "shared")))
    (tmp_path / "driver").mkdir()
    monkeypatch.chdir(tmp_path / "driver")
    # The same path is another folder in each process, as on nodes with local disks.
    with pytest.raises(
        SpecError,
        match=r"/proc/self/cwd/runs, which these nodes do not share: .*; name a folder of a",
    ):
        _check_shared(Storage("/proc/self/cwd/runs"))
    assert os.listdir(tmp_path / "driver" / "runs") == []
    _check_shared(Storage("s3://bucket/runs"))  # it is the same from everywhere


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_workers_get_the_wait_policy_of_the_user(
    own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    assert worker_environment().get("OMP_WAIT_POLICY") == own
