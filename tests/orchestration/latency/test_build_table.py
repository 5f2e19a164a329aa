"""Measuring with a runtime that sleeps for known times: rows, fit, crashes, resuming."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import hardware
from cluster.hardware import Target
from cluster.placement import nodes
from cluster.runtimes.base import MeasurementError
from cluster.storage import Storage
from nas_core import latency
from nas_core.architecture import Architecture
from nas_core.latency import LatencyEntry, LatencyTable, op_signatures
from nas_core.network import Head, Stem
from nas_core.ops import build_op
from nas_core.settings import MeasureSettings
from nas_core.shapes import OpShape
from nas_core.space import Stage, chain
from orchestration.latency import build_table as stage
from orchestration.latency.build_table import measure_table
from orchestration.latency.calibrate import CalibrationSize, refitted
from orchestration.latency.device import identity
from orchestration.latency.network import measure_network
from orchestration.latency.row_store import RowStore
from orchestration.programs.compile_workers import compile_workers_running
from tests.support import sleeping_runtime
from tests.support.sleeping_runtime import (
    DEATHS,
    OVERHEAD_MS,
    PACE,
    REFUSED,
    SLEEPER,
    VERSION,
    weights_ms,
)

pytestmark = pytest.mark.timed

SPACE = chain(
    "sleepy",
    stages=[Stage(8, 2, 2)],
    ops=["mbconv_k3_e3", "mbconv_k5_e3", "mbconv_k7_e3", "skip"],
    in_channels=1,
    resolution=8,
    classes=10,
    stem_channels=8,
    stem_stride=1,
    head_channels=16,
    reference_op="mbconv_k3_e3",
)
QUICK = MeasureSettings(
    rounds=5,
    network_rounds=5,
    samples_per_round=2,
    sample_ms=1.0,
    calibrate_s=0.0,
    accept_noisy=True,  # other tests may run at the same time
)


@pytest.fixture(scope="module")
def ray_with_sleepers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray with two cores whose processes know the runtime; yields the file that makes it crash."""
    import ray

    deaths = tmp_path_factory.mktemp("deaths") / "deaths.txt"
    sleeping_runtime.register()
    os.environ[DEATHS] = str(deaths)
    hook = "tests.support.sleeping_runtime.register"
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={
            "worker_process_setup_hook": hook,
            "env_vars": {DEATHS: str(deaths), "PYTHONPATH": os.getcwd()},
        },
    )
    with compile_workers_running(nodes()):
        yield deaths
    ray.shutdown()
    del os.environ[DEATHS]


def module_of(op: str, part: Any) -> Any:
    if op in ("stem", "head"):
        return Stem(SPACE) if op == "stem" else Head(SPACE)
    return build_op(op, OpShape(part.in_channels, part.out_channels, part.stride))


def measured(folder: Path, logged: list[str] | None = None, **changes: Any) -> LatencyTable:
    lines: list[str] = [] if logged is None else logged
    storage = Storage(str(folder))
    options: dict[str, Any] = {"settings": QUICK, "target": SLEEPER, **changes}
    settings, target = options.pop("settings"), options.pop("target")
    return measure_table(SPACE, target, settings, storage, "key", log=lines.append, **options)


def kept_rows(folder: Path) -> RowStore:
    """Rows stored by a measurement on this machine."""
    return RowStore(Storage(str(folder)), "key", identity(hardware.facts()))


@pytest.fixture(scope="module")
def table(ray_with_sleepers: Path, tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    return measured(tmp_path_factory.mktemp("table"))


@pytest.mark.slow
def test_rows_are_what_the_parts_take_without_the_call(table: LatencyTable) -> None:
    assert [row.part for row in table.rows] == op_signatures(SPACE)
    for row in table.rows:
        expected = weights_ms(module_of(row.part.op, row.part))
        assert row.median_ms == pytest.approx(expected, abs=0.02, rel=0.05)
        assert row.p10_ms <= row.median_ms <= row.p90_ms
        assert row.count == QUICK.rounds * QUICK.samples_per_round
    assert table.overhead_ms == pytest.approx(OVERHEAD_MS, abs=0.02)


@pytest.mark.slow
def test_a_line_through_whole_networks_is_judged_on_others(table: LatencyTable) -> None:
    known = table.calibration
    assert known is not None
    assert (len(known.fitted), len(known.checked)) == (5, 4)  # the reference and eight others
    assert known.errors is not None
    assert known.errors.mape < 0.05
    assert table.scale == pytest.approx(1.0, abs=0.05)
    reference = Architecture.reference(SPACE)
    assert table.reference_ms == pytest.approx(weights_ms(reference.build()), abs=0.03)


@pytest.mark.slow
def test_a_table_says_on_what_and_when_it_was_measured(table: LatencyTable) -> None:
    assert table.device["bed"] == "soft"
    assert {"cpu", "cores", "host", "batch_size", "threads", "precision"} <= table.device.keys()
    assert table.date.endswith("+00:00")
    assert LatencyTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table


@pytest.mark.slow
def test_a_larger_batch_takes_longer(ray_with_sleepers: Path, tmp_path: Path) -> None:
    batch = Target(name="sleeper", runtime="sleeping", batch_size=3)
    result = measured(tmp_path, target=batch)
    stem = weights_ms(Stem(SPACE))
    assert result.rows[0].median_ms == pytest.approx(3 * stem, abs=0.02, rel=0.05)


@pytest.mark.slow
def test_a_whole_network_is_measured_against_the_reference(table: LatencyTable) -> None:
    network = Architecture.uniform(SPACE, "mbconv_k7_e3")
    result = measure_network(network, table, SLEEPER, QUICK)
    assert result.ms == pytest.approx(weights_ms(network.build()), rel=0.05)
    assert result.drift == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
def test_a_measurement_that_was_stopped_goes_on_with_what_is_missing(
    ray_with_sleepers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "GROUP", 2)
    monkeypatch.setattr(latency, "NOISY_SPREAD", 100.0)  # so that no row is measured again

    class StoppedError(Exception):
        pass

    def stop(done: int, _all: int) -> None:
        if done == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        measured(tmp_path, progress=stop)
    store = kept_rows(tmp_path)
    kept = {part: store.get(part) for part in op_signatures(SPACE)}
    assert sum(row is not None for row in kept.values()) == 4
    steps: list[int] = []
    result = measured(tmp_path, progress=lambda done, _all: steps.append(done))
    assert steps[0] == 6
    for row in result.rows:
        assert kept[row.part] in (None, row)
    assert kept_rows(tmp_path).missing(op_signatures(SPACE)) == op_signatures(SPACE)


@pytest.mark.slow
def test_rows_of_another_device_are_not_gone_on_with(
    ray_with_sleepers: Path, tmp_path: Path
) -> None:
    one = LatencyEntry(
        part=op_signatures(SPACE)[0], median_ms=9, p10_ms=9, p90_ms=9, spread=0.0, count=1
    )
    RowStore(Storage(str(tmp_path)), "key", {"cpu": "another"}).add([one], 0.3)
    assert max(row.median_ms for row in measured(tmp_path).rows) < 9


@pytest.mark.slow
def test_a_machine_that_becomes_slower_changes_no_row(
    ray_with_sleepers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "GROUP", 4)
    slower = Path(f"{ray_with_sleepers}{PACE}")

    def slow_down(done: int, _all: int) -> None:
        if done == 4:
            slower.write_text("1.6")

    try:
        result = measured(tmp_path, progress=slow_down)
    finally:
        slower.unlink()
    for row in result.rows:
        expected = weights_ms(module_of(row.part.op, row.part))
        assert row.median_ms == pytest.approx(expected, abs=0.03, rel=0.08)
    slowest = Architecture.reference(SPACE)
    assert result.latency_ms(slowest) == pytest.approx(1.6 * weights_ms(slowest.build()), rel=0.1)


@pytest.mark.slow
def test_rows_of_a_table_are_taken_over_and_networks_measured_anew(
    ray_with_sleepers: Path, tmp_path: Path, table: LatencyTable
) -> None:
    steps: list[int] = []
    result = measured(tmp_path, known=table, progress=lambda done, _: steps.append(done))
    assert result.rows == table.rows
    assert result.calibration != table.calibration
    assert min(steps) > len(op_signatures(SPACE))


@pytest.mark.slow
def test_an_op_that_cannot_be_compiled_is_named_with_the_reason(
    ray_with_sleepers: Path, tmp_path: Path
) -> None:
    ray_with_sleepers.write_text(f"{REFUSED + 7} always")
    reason = "sleeping cannot compile it: TypeError: no bed is that wide"
    try:
        with pytest.raises(MeasurementError, match=rf"fails with 'mbconv_k7_e3' .*: {reason}[:;]"):
            measured(tmp_path)
    finally:
        ray_with_sleepers.unlink()
    assert {part.op for part in kept_rows(tmp_path).missing(op_signatures(SPACE))} == {
        "mbconv_k7_e3"
    }


@pytest.mark.slow
def test_a_runtime_that_dies_once_costs_a_retry(ray_with_sleepers: Path, tmp_path: Path) -> None:
    ray_with_sleepers.write_text("7 once")
    result = measured(tmp_path)
    assert ray_with_sleepers.read_text() == ""  # the process did crash
    assert len(result.rows) == len(op_signatures(SPACE))


@pytest.mark.slow
def test_a_compiler_that_dies_once_costs_a_retry(ray_with_sleepers: Path, tmp_path: Path) -> None:
    ray_with_sleepers.write_text("105 once")
    result = measured(tmp_path)
    assert ray_with_sleepers.read_text() == ""
    assert len(result.rows) == len(op_signatures(SPACE))


@pytest.mark.slow
def test_a_part_with_which_a_compiler_always_dies_is_named(
    ray_with_sleepers: Path, tmp_path: Path
) -> None:
    ray_with_sleepers.write_text("105 always")
    try:
        with pytest.raises(MeasurementError, match="sleeping fails with 'mbconv_k5_e3'"):
            measured(tmp_path)
    finally:
        ray_with_sleepers.unlink()
    missing = kept_rows(tmp_path).missing(op_signatures(SPACE))
    assert {part.op for part in missing} == {"mbconv_k5_e3"}


@pytest.mark.slow
def test_a_node_with_another_version_of_the_runtime_is_refused(
    ray_with_sleepers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VERSION, "2")  # here, not in the processes that run already
    with pytest.raises(MeasurementError, match=r"sleeping is 1 on \d.*, and 2 on the driver"):
        measured(tmp_path)


@pytest.mark.slow
def test_a_part_with_which_a_runtime_always_dies_is_named_and_the_others_are_kept(
    ray_with_sleepers: Path, tmp_path: Path
) -> None:
    ray_with_sleepers.write_text("7 always")
    message = (
        r"sleeping fails with 'mbconv_k7_e3' \(8 to 8 channels, stride 1, 4 pixels\): sleeping t"
    )
    try:
        with pytest.raises(MeasurementError, match=message):
            measured(tmp_path)
    finally:
        ray_with_sleepers.unlink()
    missing = kept_rows(tmp_path).missing(op_signatures(SPACE))
    assert {part.op for part in missing} == {"mbconv_k7_e3"}
    assert len(measured(tmp_path).rows) == len(op_signatures(SPACE))


@pytest.mark.slow
def test_a_noisy_table_is_measured_once_more_and_refused_unless_asked_for(
    ray_with_sleepers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "NOISY_SPREAD", -1.0)  # every row is noisy
    logged: list[str] = []
    with pytest.raises(MeasurementError, match=r"twice; expected .* measure.accept_noisy: true"):
        measured(tmp_path, logged, settings=replace(QUICK, accept_noisy=False))
    assert sum("once more" in line for line in logged) == 1
    assert len(measured(tmp_path, logged).rows) == len(op_signatures(SPACE))
    assert logged[-2].startswith(f"WARNING {len(op_signatures(SPACE))} of them still do; kept")


@pytest.mark.slow
def test_other_networks_are_measured_beside_those_of_the_space(
    ray_with_sleepers: Path, tmp_path: Path
) -> None:
    other = Architecture.uniform(chain("other", **{**CHAIN, "classes": 10}), "mbconv_k3_e3")
    extent = CalibrationSize(fitted=4, checked=4, others=(other,), names=("mine",))
    known = measured(tmp_path, extent=extent).calibration
    assert known is not None
    (one,) = known.others
    assert (one.name, one.ops, one.parts_ms) == ("mine", None, None)
    assert one.measured_ms == pytest.approx(weights_ms(other.build()), rel=0.05)


CHAIN: dict[str, Any] = {
    "stages": [Stage(16, 1, 2)],
    "ops": ["mbconv_k3_e3", "mbconv_k5_e3"],
    "in_channels": 1,
    "resolution": 8,
    "stem_channels": 8,
    "stem_stride": 1,
    "head_channels": 16,
    "reference_op": "mbconv_k3_e3",
}


@pytest.mark.slow
def test_a_derived_network_that_missed_joins_the_fit(table: LatencyTable) -> None:
    network = Architecture.uniform(SPACE, "mbconv_k5_e3")
    missed = 1.3 * table.latency_ms(network)
    result = refitted(table, network, missed)
    assert result.latency_ms(network) == pytest.approx(missed)
    assert result.calibration is not None
    assert result.calibration.fitted[-1].ops == network.ops
