"""Which networks are measured on which targets, and what is known of them afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.runtimes import MeasurementError
from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.settings import MeasureSettings
from orchestration import across
from orchestration.across import latencies_across, measure_across, targets_to_measure
from tests.orchestration.job_folder import OPS, SPACE, baseline_result, latency_table, result

SMALL = Architecture(SPACE, ("mbconv_k5_e6", *OPS[1:]))
TABLE = replace(latency_table(), reference_ms=0.4)
TABLES = {"mobile": TABLE, "cpu": replace(TABLE, target="cpu", reference_ms=0.3)}


def found(target: str, model: Architecture, **changes: Any) -> dict[str, Any]:
    values = {"target": target, "architecture": model.to_dict()}
    hashed = {"architecture_hash": model.digest()}
    name = changes.pop("case", f"{target}-0.31ms")
    return result(name, **{**values, **hashed, **changes})


RESULTS = [
    found("mobile", Architecture(SPACE, OPS)),
    found("cpu", SMALL),
    result("mobile-reference"),
    baseline_result("mnasnet"),
]


def plan_of(**settings: Any) -> Any:
    targets = [SimpleNamespace(name=name, is_measured=True) for name in TABLES]
    for target in targets:
        target.hardware = lambda name=target.name: f"the {name}"
    job = SimpleNamespace(measure=MeasureSettings(**settings))
    return SimpleNamespace(job=job, targets=targets, space=SPACE)


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Measures nothing; says what it was asked."""
    asked: list[tuple[str, list[str]]] = []

    def measured(_plan: Any, target: Any, _table: Any, networks: Any, _say: Any) -> Any:
        asked.append((target.name, sorted(networks)))
        return {key: {"ms": 0.1 * len(target.name), "spread": 0.0} for key in networks}

    monkeypatch.setattr(across, "_measured", measured)
    return asked


def test_every_specialized_network_is_measured_on_every_target_once(
    folder: Storage, clock: list[Any]
) -> None:
    both = sorted([Architecture(SPACE, OPS).digest(), SMALL.digest()])
    for _ in range(2):
        measure_across(plan_of(), RESULTS, TABLES, folder, print)
    assert clock == [("mobile", both), ("cpu", both)]
    assert latencies_across(RESULTS, TABLES, folder) == {
        "mobile": dict.fromkeys(both, 0.1 * 6),
        "cpu": dict.fromkeys(both, 0.1 * 3),
    }


def test_another_network_is_measured_with_those_that_are_known(
    folder: Storage, clock: list[Any]
) -> None:
    measure_across(plan_of(), RESULTS, TABLES, folder, print)
    other = Architecture(SPACE, ("mbconv_k7_e6", *OPS[1:]))
    grown = [*RESULTS, found("cpu", other, case="cpu-0.5ms")]
    assert [one.name for one in targets_to_measure(plan_of(), grown, TABLES, folder)] == [
        "mobile",
        "cpu",
    ]
    measure_across(plan_of(), grown, TABLES, folder, print)
    assert {len(networks) for _, networks in clock[2:]} == {3}


def test_a_table_that_was_measured_again_asks_for_it_again(
    folder: Storage, clock: list[Any]
) -> None:
    measure_across(plan_of(), RESULTS, TABLES, folder, print)
    again = {**TABLES, "cpu": replace(TABLES["cpu"], reference_ms=0.31)}
    assert [t.name for t in targets_to_measure(plan_of(), RESULTS, again, folder)] == ["cpu"]
    assert "cpu" in latencies_across(RESULTS, TABLES, folder)
    assert latencies_across(RESULTS, again, folder)["cpu"] == {}


@pytest.mark.parametrize(
    ("settings", "results"), [({"across": False}, RESULTS), ({}, [RESULTS[0], *RESULTS[2:]])]
)
def test_one_target_is_not_compared_nor_what_nobody_asks_for(
    folder: Storage, settings: dict[str, Any], results: list[Any]
) -> None:
    assert not targets_to_measure(plan_of(**settings), results, TABLES, folder)


def test_a_target_that_cannot_be_measured_says_what_its_table_says(folder: Storage) -> None:
    shipped = {"mobile": replace(TABLE, reference_ms=None)}
    known = latencies_across(RESULTS, shipped, folder)["mobile"]
    assert known[SMALL.digest()] == pytest.approx(TABLE.latency_ms(SMALL))


def test_a_target_that_fails_costs_no_other(
    folder: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(_plan: Any, target: Any, *_words: Any) -> Any:
        if target.name == "mobile":
            raise MeasurementError("it is gone")
        return {SMALL.digest(): {"ms": 0.2, "spread": 0.0}}

    monkeypatch.setattr(across, "_measured", measured)
    said: list[str] = []
    measure_across(plan_of(), RESULTS, TABLES, folder, said.append)
    assert "WARNING not measured on the mobile: it is gone" in said
    assert latencies_across(RESULTS, TABLES, folder) == {
        "mobile": {},
        "cpu": {SMALL.digest(): 0.2},
    }
