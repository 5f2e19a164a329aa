"""Rows of the evidence tables, from made-up networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from orchestration import load_job
from orchestration.planning.plan import make_plan
from orchestration.reports.figures.sweep import sweep_png
from tests.benchmarks.evidence.cost import Steps, cost_rows, published_row
from tests.benchmarks.evidence.curve import budget_rows, speed_rows, width_rows
from tests.benchmarks.evidence.matrix import equal_rows, matrix_rows, preference_rows
from tests.benchmarks.evidence.networks import Trained, pictured, warmup_workers


def network(kind: str, own: str, top1: float, ms: float, seed: int = 0, **more: Any) -> Trained:
    words: dict[str, Any] = {
        "name": kind,
        "budget": "60%" if kind == "search" else None,
        "budget_ms": 2.5 if kind == "search" else None,
        "ms": {"cpu": ms, "mobile": 10 * ms},
        "warmup_s": 80.0,
        "search_s": 10.0,
        "retrain_s": 20.0,
        "ops": (),
        "hardware": {"cpu": "a processor", "mobile": "a phone"},
    }
    return Trained(kind=kind, own=own, seed=seed, top1=top1, **{**words, **more})


def widths(seed: int, better: float = 0.0) -> list[Trained]:
    return [
        network("baseline", "cpu", top1 + better, ms, seed, name=f"mobilenet_v2_{width}")
        for width, top1, ms in ((0.35, 80.0, 1.0), (1.0, 90.0, 4.0))
    ]


BOTH = [
    *widths(0),
    *widths(1, 1.0),
    network("search", "cpu", 90.0, 2.0, 0),
    network("search", "cpu", 90.0, 2.0, 1),
]


def test_a_found_network_is_held_against_mobilenet_at_its_latency_by_seed() -> None:
    (row,) = budget_rows(BOTH, "cpu")
    assert (row["ms"], row["top1"], row["n"]) == (2.0, 90.0, 2)
    mean, low, high = row["points over MobileNetV2 at its latency"]
    assert mean == pytest.approx(4.5)  # 90 - 85 and 90 - 86
    assert low < 4.5 < high


def test_nothing_is_said_where_mobilenet_is_not_as_fast() -> None:
    fast = network("search", "cpu", 70.0, 0.5)
    (row,) = budget_rows([*widths(0), fast], "cpu")
    assert row["points over MobileNetV2 at its latency"] is None


def test_widths_stand_in_their_order_with_their_spread() -> None:
    rows = width_rows(BOTH, "mobile")
    assert [(row["what"], row["ms"]) for row in rows] == [
        ("mobile: mobilenet_v2_0.35", 10.0),
        ("mobile: mobilenet_v2_1.0", 40.0),
    ]
    assert rows[0]["deviation"] == pytest.approx(0.71)


def test_speed_is_that_at_the_accuracy_of_both_and_a_point_below() -> None:
    at, below = speed_rows(BOTH, "cpu")
    assert at["times"][0] == pytest.approx(2 / 2**0.1, abs=0.01)  # 4 ms / 2, and 2 * 2**0.8 / 2
    assert (at["top1"], below["top1"]) == (90.0, 89.0)
    assert below["times"][0] == pytest.approx(2 * 4**-0.15, abs=0.01)  # of 4**0.9 and 4**0.8 ms
    better = network("search", "cpu", 99.0, 2.0)
    at, below = speed_rows([*widths(0), better], "cpu")
    assert (at["times"], below["times"]) == ([2.0], [pytest.approx(2 * 4**-0.1, abs=0.01)])


def test_each_target_is_asked_for_its_own_network() -> None:
    own = network("search", "cpu", 90.0, 2.0)
    other = replace(network("search", "mobile", 89.0, 3.0), ms={"cpu": 3.0, "mobile": 5.0})
    on_cpu, on_mobile = preference_rows([own, other])  # which takes 2 ms on cpu and 20 on mobile
    assert (on_cpu["times"], on_mobile["times"]) == ([1.5], [4.0])
    assert on_cpu["what"].startswith("on cpu, at equal accuracy: searched for mobile / searched")
    assert [row["ms"] for row in equal_rows([own, other])] == [
        {"cpu": 2.0, "mobile": 20.0},
        {"cpu": 3.0, "mobile": 5.0},
    ]


def test_networks_of_two_targets_compare_one_point_below_what_both_reach() -> None:
    own = [network("search", "cpu", top1, ms) for top1, ms in ((80.0, 1.0), (90.0, 4.0))]
    others = [
        replace(network("search", "mobile", top1, ms), ms={"cpu": ms, "mobile": 1.0})
        for top1, ms in ((79.0, 2.0), (86.0, 8.0))
    ]
    row = preference_rows([*own, *others])[0]
    assert row["top1"] == 85.0
    assert row["times"] == [pytest.approx(2 * 4 ** (6 / 7) / 4**0.5, abs=0.01)]
    assert matrix_rows([own[0], others[0]])[1]["ms"] == {"cpu": 2.0, "mobile": 1.0}


def test_costs_are_in_trainings_of_one_network() -> None:
    rows = {row["what"]: row["trainings"] for row in cost_rows(BOTH, Steps(800, 100, 50, 200))}
    assert rows["warm-up, once per sweep and seed"] == 4.0
    assert rows["search, each case"] == 0.5
    assert rows["each of 1 cases, its part of the warm-up and its training included"] == 5.5


def test_steps_are_those_of_the_job(tmp_path: Path) -> None:
    job = load_job("jobs/compare_mobilenet.yaml", [f"storage={tmp_path}"])
    epoch = 3200 // 32
    steps = Steps.of(make_plan(job))
    assert (steps.warmup, steps.search) == (16 * epoch, 3 * epoch)
    assert (steps.updates, steps.training) == (3 * epoch, 6 * 4000 // 32)


def test_the_published_recipe_costs_what_its_steps_take() -> None:
    seconds = {"plain training step": 2.0, "weight step": 2.0, "two-path alpha step": 1.0}
    row = published_row(Steps(40, 120, 20, 300), seconds)
    assert row["trainings"] == pytest.approx(1 + (320 + 20) / 600, abs=0.01)


@pytest.mark.slow
def test_baselines_are_pictured_on_every_target_and_others_on_their_own() -> None:
    seen = [(item["kind"], item["target"], item["measured_ms"]) for item in pictured(BOTH)]
    assert seen.count(("search", "cpu", 2.0)) == 2
    assert ("search", "mobile", 20.0) not in seen
    assert {("baseline", "cpu", 1.0), ("baseline", "mobile", 10.0)} <= set(seen)
    assert sweep_png(pictured(BOTH), "x").startswith(b"\x89PNG")


def test_a_warm_up_counts_all_its_workers(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_json("warmups/k/end.json", {"checkpoint": "00016-00000000"})
    storage.write_json("warmups/k/00016-00000000/state.json", {"size": 2})
    assert warmup_workers(storage, {"warmup_key": "k"}) == 2
    assert warmup_workers(storage, {"warmup_key": None}) == 1


def test_a_search_is_held_against_the_reference_of_its_space_too() -> None:
    networks = [
        *BOTH,
        network("reference", "cpu", 90.0, 3.0),
        network("reference", "cpu", 90.0, 3.0, 1),
    ]
    rows = speed_rows(networks, "cpu")
    assert [row["times"][0] for row in rows[2:]] == [1.5, 1.5]
    assert rows[2]["what"].startswith("cpu: times faster than the reference at the highest")
    assert width_rows(networks, "cpu")[-1]["what"] == "cpu: reference, without a search"


def test_it_is_told_where_fronts_are_read_at_their_fastest_networks() -> None:
    fast = network("search", "cpu", 99.0, 2.0)
    at, below = speed_rows([*widths(0), fast], "cpu")
    assert (at["points ahead"], below["points ahead"]) == (9.0, 10.0)
    assert at["their fastest is better still"] == 0
    other = replace(network("search", "mobile", 80.0, 3.0), ms={"cpu": 3.0, "mobile": 5.0})
    on_cpu, on_mobile = preference_rows([fast, other])
    assert on_cpu["their fastest is better still"] == 1
    assert on_mobile["their fastest is better still"] == 1
    assert not on_cpu["by table"]


def test_a_budget_is_compared_in_the_seeds_that_mobilenet_covers() -> None:
    fast = network("search", "cpu", 70.0, 0.5, 1)
    (row,) = budget_rows([*widths(0), *widths(1), network("search", "cpu", 90.0, 2.0), fast], "cpu")
    assert (row["covered"], row["n"]) == (1, 2)
    assert row["points over MobileNetV2 at its latency"] == [5.0]
