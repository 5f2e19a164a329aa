"""Random networks that searched ones are compared with, in a job of the product."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable
from nas_core.published import pixel1
from nas_core.space import proxyless_imagenet
from orchestration import load_job
from tests.benchmarks.evidence.markdown import AHEAD
from tests.benchmarks.evidence.networks import Trained
from tests.benchmarks.evidence.random_networks import drawn, random_rows, write_networks
from tests.benchmarks.evidence.test_rows import network

SPACE = proxyless_imagenet()
OPS = Architecture.reference(SPACE).ops


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return pixel1.table(SPACE)


def found(seed: int, top1: float = 90.0, budget: str = "50%") -> Trained:
    return network("search", "cpu", top1, 1.0, seed, budget=budget, ops=OPS)


def test_they_take_as_long_as_the_found_one(table: LatencyTable) -> None:
    most = table.latency_ms(Architecture(SPACE, OPS))
    one, other = drawn(found(0), table)
    assert one != other
    assert all(0.95 * most <= table.latency_ms(a) <= most for a in (one, other))
    assert drawn(found(0), table) == [one, other] != drawn(found(1), table)


def test_a_job_trains_those_of_one_seed(table: LatencyTable, tmp_path: Path) -> None:
    networks = [found(20), found(21), found(20, budget="75%")]
    words = write_networks(networks, {"cpu": table}, 20, tmp_path)
    job = load_job("jobs/compare_mobilenet.yaml", words)
    assert job.seeds == (20,)
    files = [Path(str(case.architecture)) for case in job.cases]
    assert [Architecture.from_json(file.read_text()) for file in files] == drawn(found(20), table)


def test_found_ones_are_held_against_those_of_their_seed() -> None:
    networks = [found(20, 90.0), found(21, 92.0)]
    beside = [
        network("given", "cpu", top1, 1.0, seed, name=f"random-50-{number}")
        for seed, number, top1 in ((20, 0, 88.0), (20, 1, 90.0), (21, 0, 89.0), (21, 1, 89.0))
    ]
    others = [network("given", "cpu", 10.0, 1.0, 20, name="random-100-0")]
    (row,) = random_rows(networks, [*beside, *others])
    assert row["what"].startswith("cpu, budget 50%")
    assert (row["top1"], row["n"], row["found"], row["seeds"]) == (89.0, 4, 91.0, 2)
    assert row[AHEAD][0] == 2.0
