"""Cross-target evaluation: networks measured on each target, and stored results."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.hardware import Target
from cluster.runtimes.base import MeasurementError, ProgramError
from cluster.runtimes.timing import Timing
from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.calibration import Calibration
from nas_core.settings import MeasureSettings
from nas_core.space import proxyless_imagenet
from orchestration.driver import cross_target
from orchestration.driver.cross_target import measure_cross_target, targets_to_measure
from orchestration.latency.table_store import SHIPPED
from orchestration.programs.compile_workers import is_beside
from orchestration.programs.timing_workers import Program
from orchestration.reports.cross_target import cross_target_latencies
from tests.support.job_folder import OPS, SPACE, baseline_result, latency_table, result

SMALL = Architecture(SPACE, ("mbconv_k5_e6", *OPS[1:]))
CPU, PHONE = (
    Target(name="cpu", runtime="onnxruntime"),
    Target(name="mobile", runtime="executorch"),
)
CALIBRATED = Calibration(fitted=(), checked=(), errors=None, others=())
TABLE = replace(latency_table(), reference_ms=0.4, calibration=CALIBRATED)
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
    job = SimpleNamespace(measure=MeasureSettings(**settings))
    return SimpleNamespace(job=job, targets=[PHONE, CPU], space=SPACE)


def timing(ms: float) -> Timing:
    return Timing(median_ms=ms, p10_ms=ms, p90_ms=ms, spread=0.0, rise=1.0, count=4)


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Stand-in for a measurement that records its calls."""
    asked: list[tuple[str, list[str]]] = []

    def measured(_plan: Any, target: Any, _table: Any, networks: Any, *_words: Any) -> Any:
        asked.append((target.name, sorted(networks)))
        return {key: {"ms": 0.1 * len(target.name), "spread": 0.0} for key in networks}

    monkeypatch.setattr(cross_target, "_measured", measured)
    return asked


def test_every_network_is_measured_on_every_target_once(folder: Storage, clock: list[Any]) -> None:
    every = sorted(item["architecture_hash"] for item in RESULTS)  # reference and baseline too
    for _ in range(2):
        measure_cross_target(plan_of(), RESULTS, TABLES, folder, print)
    assert clock == [("mobile", every), ("cpu", every)]
    assert cross_target_latencies(RESULTS, TABLES, folder) == {
        "mobile": dict.fromkeys(every, 0.1 * 6),
        "cpu": dict.fromkeys(every, 0.1 * 3),
    }


def test_random_networks_of_a_control_are_left_out(folder: Storage, clock: list[Any]) -> None:
    control = found("cpu", Architecture(SPACE, ("mbconv_k7_e6", *OPS[1:])), kind="random")
    measure_cross_target(plan_of(), [*RESULTS, control], TABLES, folder, print)
    assert {len(networks) for _, networks in clock} == {len(RESULTS)}


def test_another_network_is_measured_with_those_that_are_known(
    folder: Storage, clock: list[Any]
) -> None:
    measure_cross_target(plan_of(), RESULTS, TABLES, folder, print)
    other = Architecture(SPACE, ("mbconv_k7_e6", *OPS[1:]))
    grown = [*RESULTS, found("cpu", other, case="cpu-0.5ms")]
    assert [item.name for item in targets_to_measure(plan_of(), grown, TABLES, folder)] == [
        "mobile",
        "cpu",
    ]
    measure_cross_target(plan_of(), grown, TABLES, folder, print)
    assert {len(networks) for _, networks in clock[2:]} == {len(grown)}


def test_a_table_that_was_measured_again_asks_for_it_again(
    folder: Storage, clock: list[Any]
) -> None:
    measure_cross_target(plan_of(), RESULTS, TABLES, folder, print)
    again = {**TABLES, "cpu": replace(TABLES["cpu"], reference_ms=0.31)}
    assert [t.name for t in targets_to_measure(plan_of(), RESULTS, again, folder)] == ["cpu"]
    assert "cpu" in cross_target_latencies(RESULTS, TABLES, folder)
    assert cross_target_latencies(RESULTS, again, folder)["cpu"] == {}


@pytest.mark.parametrize(
    ("settings", "results"), [({"across": False}, RESULTS), ({}, [RESULTS[0], *RESULTS[2:]])]
)
def test_one_target_is_not_compared_nor_what_nobody_asks_for(
    folder: Storage, settings: dict[str, Any], results: list[Any]
) -> None:
    assert not targets_to_measure(plan_of(**settings), results, TABLES, folder)


def test_a_target_that_cannot_be_measured_says_what_its_table_says(folder: Storage) -> None:
    shipped = {"mobile": replace(TABLE, calibration=None)}
    unmeasured = [{**item, "measured_ms": None} for item in RESULTS]
    for results, tables in ((RESULTS, shipped), (unmeasured, {"mobile": TABLE})):  # one was read
        known = cross_target_latencies(results, tables, folder)["mobile"]
        assert known[SMALL.digest()] == pytest.approx(TABLE.latency_ms(SMALL))


def test_the_table_that_ships_is_such() -> None:
    space = proxyless_imagenet()
    network = Architecture.reference(space)
    asked = found("pixel1", network, case="pixel1-80ms")
    known = cross_target_latencies(
        [asked], {"pixel1": SHIPPED["pixel1"](space)}, Storage("/nowhere")
    )
    assert known["pixel1"][network.digest()] == pytest.approx(135.3, abs=0.1)


def test_a_target_that_fails_costs_no_other(
    folder: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(_plan: Any, target: Any, *_words: Any) -> Any:
        if target.name == "mobile":
            raise MeasurementError("it is gone")
        return {SMALL.digest(): {"ms": 0.2, "spread": 0.0}}

    monkeypatch.setattr(cross_target, "_measured", measured)
    said: list[str] = []
    measure_cross_target(plan_of(), RESULTS, TABLES, folder, said.append)
    assert not targets_to_measure(plan_of(), RESULTS, TABLES, folder)  # a finished job does no work
    assert "WARNING not measured on mobile (XNNPACK): it is gone" in said
    assert cross_target_latencies(RESULTS, TABLES, folder) == {
        "mobile": {},
        "cpu": {SMALL.digest(): 0.2},
    }


def test_the_change_of_the_reference_since_the_table_is_taken_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reference takes 0.6 ms instead of 0.4 ms, so all latencies are scaled by 1.5."""
    node = SimpleNamespace(resources={}, id="n", host="h")

    def lowered(_space: Any, _target: Any, subjects: Any) -> list[Any]:
        return list(subjects)

    def timings(_bench: Any, programs: Any) -> list[Timing]:
        times = {None: 0.1, Architecture.reference(SPACE): 0.7}
        return [timing(times.get(program, 1.0)) for program in programs]

    monkeypatch.setattr("orchestration.programs.compile_workers.lower", lowered)
    monkeypatch.setattr(
        "orchestration.programs.compile_workers.compile_workers_running", lambda _: nullcontext()
    )
    monkeypatch.setattr("cluster.placement.cores_reserved", lambda *_: nullcontext())
    monkeypatch.setattr("orchestration.latency.device.node_of", lambda *_: node)
    monkeypatch.setattr("orchestration.latency.calibrate.timed_networks", timings)
    plan = plan_of()
    actual = cross_target._measured(plan, plan.targets[0], TABLE, {"a": SMALL}, {}, print)
    assert actual["a"]["ms"] == pytest.approx((1.0 - 0.1) / (0.6 / 0.4))


def test_what_was_exported_is_not_lowered_again(
    folder: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(_plan: Any, target: Any, _table: Any, networks: Any, made: Any, _say: Any) -> Any:
        asked[target.name] = made
        return {key: {"ms": 0.1, "spread": 0.0} for key in networks}

    asked: dict[str, Any] = {}
    monkeypatch.setattr(cross_target, "_measured", measured)
    searched = found("cpu", SMALL, input_shape=[3, 8, 8])
    for file in ("model.onnx", "model.pte"):
        folder.write_bytes(f"cases/{searched['case']}/model/{file}", file.encode())
    measure_cross_target(plan_of(), [RESULTS[0], searched], TABLES, folder, print)
    assert asked == {
        "mobile": {SMALL.digest(): Program(b"model.pte", (1, 3, 8, 8))},
        "cpu": {SMALL.digest(): Program(b"model.onnx", (1, 3, 8, 8))},
    }


@pytest.mark.parametrize(
    ("target", "own", "is_there"),
    [
        (CPU, replace(CPU, threads=2), True),
        (CPU, replace(CPU, batch_size=8), False),
        (CPU, replace(PHONE, batch_size=8), True),  # for others it is exported for one image
        (replace(CPU, batch_size=8), PHONE, False),
        (replace(CPU, batch_size=8), replace(CPU, batch_size=8), True),
        (replace(PHONE, device="android"), CPU, False),
        (replace(CPU, runtime="torch"), PHONE, False),
    ],
)
def test_a_program_is_used_where_it_is_the_one_that_would_be_made(
    target: Target, own: Target, is_there: bool
) -> None:
    assert is_beside(target, own) is is_there


def test_a_network_that_a_runtime_refuses_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def lowered(_space: Any, _target: Any, subjects: Any) -> list[Any]:
        if SMALL in subjects:
            raise ProgramError("no such op")
        return list(subjects)

    monkeypatch.setattr("orchestration.programs.compile_workers.lower", lowered)
    plan, other = plan_of(), Architecture(SPACE, OPS)
    kept = dict(cross_target._lowered(plan, plan.targets[0], {"a": SMALL, "b": other}))
    assert kept == {"b": other}
