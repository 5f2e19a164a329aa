"""Placement: the node that a target is measured on, and the reservation of its cores."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cluster import placement
from cluster.hardware import TARGETS
from cluster.placement import Node, PlacementError, cores_reserved, node_for, nodes, this_machine


def node(name: str, *, is_driver: bool = False, **resources: float) -> Node:
    labels = {"zone": name, "ray.io/node-id": "abc"}
    return Node(name, f"host-{name}", {"CPU": 8.0, **resources}, labels, is_driver)


HEAD, GPU = node("a", is_driver=True), node("b", GPU=2.0)


def test_a_target_without_needs_is_measured_where_the_driver_is() -> None:
    assert node_for(TARGETS["cpu"], [HEAD, GPU]) == HEAD


def test_a_gpu_is_measured_where_there_is_one() -> None:
    assert node_for(TARGETS["gpu"], [HEAD, GPU]) == GPU


def test_labels_choose_a_node() -> None:
    assert node_for(replace(TARGETS["cpu"], labels={"zone": "b"}), [HEAD, GPU]) == GPU


def test_a_target_that_no_node_offers_is_refused_with_what_the_cluster_has() -> None:
    wanted = replace(TARGETS["gpu"], labels={"zone": "c"})
    with pytest.raises(PlacementError) as error:
        node_for(wanted, [HEAD, GPU])
    assert str(error.value) == (
        "target 'gpu' needs a node with 1 GPU, label zone=c; the cluster has host-a (8 CPU, label "
        "zone=a); host-b (8 CPU, 2 GPU, label zone=b): add such a node, or change targets.gpu"
    )


def test_this_machine_offers_its_cores() -> None:
    assert this_machine().resources["CPU"] >= 1


@pytest.fixture(scope="module")
def ray_of_two_cores() -> Iterator[None]:
    import ray

    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=None,
        labels={"zone": "here"},
    )
    yield
    ray.shutdown()


@pytest.mark.slow
def test_nodes_are_those_of_ray(ray_of_two_cores: None) -> None:
    (only,) = nodes()
    assert only.is_driver
    assert only.resources["CPU"] == 2
    assert only.labels["zone"] == "here"


@pytest.mark.slow
def test_cores_are_held_while_a_table_is_measured_and_free_afterwards(
    ray_of_two_cores: None,
) -> None:
    import ray

    (only,) = nodes()
    with cores_reserved(only, print):
        assert ray.available_resources().get("CPU", 0.0) == 0.0
    for _ in range(100):
        if ray.available_resources().get("CPU", 0.0) == 2.0:
            break
        threading.Event().wait(0.1)
    assert ray.available_resources()["CPU"] == 2.0


@pytest.mark.slow
def test_a_busy_node_is_waited_for_and_a_person_is_told(
    ray_of_two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(placement, "LOG_AFTER_S", 0.5)

    @ray.remote(num_cpus=1)
    def train() -> None:
        threading.Event().wait(3)

    training, said = train.remote(), []
    (only,) = nodes()
    with cores_reserved(only, said.append):
        assert ray.wait([training], timeout=0)[0] == [training]  # it has ended
    assert said == [f"waiting for all cores of {only.host}: latencies are measured on an idle node"]
