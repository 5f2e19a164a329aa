"""Layout of the workers of a case on nodes of all kinds, and the number of concurrent cases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.placement import Node, steady_selector
from orchestration.config.job import ClusterSettings
from orchestration.planning.worker_layout import (
    NodeResources,
    WorkerLayout,
    check_placeable,
    warmup_layout,
    worker_layout,
)

TWO_CORES = [NodeResources(2)]
EIGHT_GPUS = [NodeResources(32, 4.0), NodeResources(32, 4.0)]


def layout(rooms: list[NodeResources], **settings: Any) -> WorkerLayout:
    return worker_layout(ClusterSettings(**settings), rooms)


@pytest.mark.parametrize(
    ("rooms", "settings", "expected"),
    [
        (TWO_CORES, {}, (1, 2, 0.0, 1)),
        (TWO_CORES, {"workers": 2}, (2, 1, 0.0, 1)),
        (TWO_CORES, {"workers": 1, "cpus_per_worker": 1}, (1, 1, 0.0, 2)),
        ([NodeResources(8)], {}, (4, 2, 0.0, 1)),
        ([NodeResources(8)], {"workers": 1, "cpus_per_worker": 2}, (1, 2, 0.0, 4)),
        # Three cores each: two workers of two cores do not fit on a node.
        (
            [NodeResources(3), NodeResources(3)],
            {"workers": 1, "cpus_per_worker": 2},
            (1, 2, 0.0, 2),
        ),
        ([NodeResources(3), NodeResources(3)], {"workers": 1}, (1, 3, 0.0, 2)),
        (EIGHT_GPUS, {}, (8, 8, 1.0, 1)),
        (EIGHT_GPUS, {"workers": 2}, (2, 8, 1.0, 4)),
        (EIGHT_GPUS, {"workers": 1, "gpus_per_worker": 0.25}, (1, 2, 0.25, 32)),
        # Two workers with 0.4 of a GPU fit on one.
        ([NodeResources(16, 2.0)], {"workers": 1, "gpus_per_worker": 0.4}, (1, 4, 0.4, 4)),
        ([NodeResources(64, 8.0)], {"workers": 1, "gpus_per_worker": 2}, (1, 16, 2.0, 4)),
        # `auto` takes as many workers as fit.
        ([NodeResources(16)], {"cpus_per_worker": 4}, (4, 4, 0.0, 1)),
        ([NodeResources(16, 4.0)], {"gpus_per_worker": 2}, (2, 8, 2.0, 1)),
        ([NodeResources(16, 4.0)], {"gpus_per_worker": 0.5}, (1, 2, 0.5, 8)),
        # Nodes without a GPU, such as a head node, hold no worker that needs one.
        ([NodeResources(8), NodeResources(16, 2.0)], {"workers": 1}, (1, 8, 1.0, 2)),
    ],
)
def test_workers_cores_gpus_and_cases_at_once(
    rooms: list[NodeResources], settings: dict[str, Any], expected: tuple[int, int, float, int]
) -> None:
    result = layout(rooms, **settings)
    assert (
        result.workers,
        result.cpus_per_worker,
        result.gpus_per_worker,
        result.at_once,
    ) == expected


ROOMS = st.lists(
    st.builds(NodeResources, st.integers(1, 64), st.sampled_from([0.0, 1.0, 2.0, 8.0])),
    min_size=1,
    max_size=6,
)


@given(ROOMS, st.integers(1, 8), st.integers(1, 8), st.sampled_from([0.0, 0.25, 0.4, 1.0, 2.0]))
def test_what_runs_at_once_fits_on_the_nodes(
    rooms: list[NodeResources], workers: int, cores: int, share: float
) -> None:
    workers = 1 if 0 < share < 1 else workers
    result = layout(rooms, workers=workers, cpus_per_worker=cores, gpus_per_worker=share)
    left = [[room.cpus, *[1.0] * int(room.gpus)] for room in rooms]
    for _ in range(result.at_once * workers):
        assert any(_placed(node, cores, share) for node in left)
    if result.at_once == 0:
        assert check_placeable(result, rooms) is not None


def _placed(node: list[float], cores: int, share: float) -> bool:
    """Take the resources of a worker from a node: a fraction of one GPU, or whole GPUs."""
    cpus, gpus = node[0], node[1:]
    taken = [i for i, gpu in enumerate(gpus) if gpu >= min(share, 1.0) - 1e-9]
    count = 1 if share < 1 else int(share)
    if cpus < cores or (share > 0 and len(taken) < count):
        return False
    node[0] = cpus - cores
    for i in taken[: count if share > 0 else 0]:
        node[1 + i] -= min(share, 1.0)
    return True


def test_a_warm_up_takes_the_whole_cluster_with_images_enough_for_each() -> None:
    case = layout(EIGHT_GPUS, workers=1)
    assert warmup_layout(case, EIGHT_GPUS, 256).workers == 8
    assert warmup_layout(case, EIGHT_GPUS, 64).workers == 4
    assert warmup_layout(case, EIGHT_GPUS, 256, most=3).workers == 3
    small = layout(TWO_CORES, workers=1, cpus_per_worker=1)
    assert warmup_layout(small, TWO_CORES, 32) == WorkerLayout(2, 1, 0.0, 1)
    # 16 images are too few for two workers: one worker with both cores.
    assert warmup_layout(small, TWO_CORES, 16) == WorkerLayout(1, 2, 0.0, 1)


def test_workers_of_a_warm_up_never_share_a_gpu() -> None:
    small = layout(EIGHT_GPUS, workers=1, gpus_per_worker=0.25)
    result = warmup_layout(small, EIGHT_GPUS, 256)
    assert (result.workers, result.gpus_per_worker) == (8, 1.0)


@given(ROOMS, st.integers(1, 8), st.integers(1, 8), st.sampled_from([0.0, 0.25, 1.0, 2.0]))
def test_a_warm_up_can_be_placed_wherever_a_case_can(
    rooms: list[NodeResources], workers: int, cores: int, share: float
) -> None:
    if 0 < share < 1:
        workers = 1
    case = layout(rooms, workers=workers, cpus_per_worker=cores, gpus_per_worker=share)
    if case.at_once == 0:
        return
    for batch in (16, 48, 1024):
        result = warmup_layout(case, rooms, batch)
        slots = sum(room.slots(result.cpus_per_worker, result.gpus_per_worker) for room in rooms)
        assert result.workers <= slots
        assert result.workers >= case.workers


def test_a_warm_up_on_uneven_nodes_takes_cores_that_all_its_workers_find() -> None:
    rooms = [NodeResources(4), NodeResources(8)]
    case = layout(rooms, workers=1, cpus_per_worker=2)
    assert warmup_layout(case, rooms, 32) == WorkerLayout(2, 4, 0.0, 1)


def test_where_a_case_takes_the_whole_cluster_its_workers_warm_up() -> None:
    alone = layout(TWO_CORES)
    assert warmup_layout(alone, TWO_CORES, 256) == alone
    elastic = layout(EIGHT_GPUS, workers=(2, 8))
    assert warmup_layout(elastic, EIGHT_GPUS, 256) == elastic


def test_workers_that_can_never_be_placed_are_refused_with_what_is_there() -> None:
    result = layout([NodeResources(2), NodeResources(2)], workers=2, cpus_per_worker=4)
    assert check_placeable(result, [NodeResources(2), NodeResources(2)]) == (
        "cluster.workers is 2, with 4 cores for each; the cluster has 2 nodes: 2 cores and 0 GPUs, "
        "2 cores and 0 GPUs: ask for fewer workers or less for each"
    )
    assert check_placeable(layout(TWO_CORES), TWO_CORES) is None
    few = layout([NodeResources(2, 1.0)], workers=(1, 8), cpus_per_worker=1)
    assert check_placeable(few, [NodeResources(2, 1.0)]) is None


def node(name: str, **labels: str) -> Node:
    named = {key.replace("_", "-"): value for key, value in labels.items()}
    return Node(name, name, {}, {f"ray.io/{key}": value for key, value in named.items()}, False)


def test_drivers_of_cases_stay_off_nodes_that_may_be_taken_away() -> None:
    steady, spot = node("a", market_type="on-demand"), node("b", market_type="spot")
    assert steady_selector([steady, spot]) == {"ray.io/market-type": "!spot"}
    assert steady_selector([node("a"), spot]) == {"ray.io/market-type": "!spot"}
    assert steady_selector([steady, node("a")]) == {}
    assert steady_selector([spot, spot]) == {}
