"""`proxyless measure` with tables that exist already: shipped, stored, or read from a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from nas_core.calibration import Calibration, MeasuredNetwork
from nas_core.latency import LatencyTable
from orchestration.cli.measure import MeasureJob, _is_enough, imported, measure, table_lines
from orchestration.config.loading import SpecError, check
from orchestration.latency.table_store import store_table, stored_table
from tests.support.latency_tables import by_kernel, table_of


def job(tmp_path: Path, target: str, **values: Any) -> MeasureJob:
    return check(MeasureJob, {"target": target, "storage": str(tmp_path), **values}, "measure")


def no_line(_text: str) -> None:
    raise AssertionError("nothing is measured")


def test_a_shipped_table_is_found_where_the_last_lines_say(tmp_path: Path) -> None:
    stored = measure(job(tmp_path, "pixel1", space={"name": "proxyless_imagenet"}), no_line)
    file_line = next(line for line in table_lines(stored, Storage(str(tmp_path))) if "file" in line)
    content = json.loads(Path(file_line.removeprefix("file").strip()).read_text())
    assert LatencyTable.from_dict(content) == stored.table
    assert stored.is_new is False


def test_a_table_of_a_file_is_kept(tmp_path: Path) -> None:
    small = {"space": {"name": "proxyless_small"}, "resolution": 32, "classes": 10, "channels": 1}
    asked = job(tmp_path, "board", targets={"board": {"table": "board.json"}}, **small)
    whole = table_of(asked.built_space(), by_kernel)
    (tmp_path / "board.json").write_text(json.dumps(whole.to_dict()))
    stored = imported(asked, tmp_path / "board.json")
    assert stored_table(Storage(str(tmp_path)), stored.key) == stored.table
    assert (
        stored.table.hardware == whole.hardware
    )  # the hardware of the file, not the name of the target
    assert stored.table.reference_ms == pytest.approx(6 * 0.03 + 0.02)
    path = tmp_path / "tables" / f"{stored.key}.json"
    last = table_lines(stored, Storage(str(tmp_path)))[-1]
    assert last == f"use      in a job file: targets: {{{stored.table.target}: {{table: {path}}}}}"


def test_a_table_that_was_measured_before_is_taken_from_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = job(tmp_path, "cpu", space={"name": "proxyless_small"}, resolution=32)
    known = table_of(asked.built_space(), by_kernel)
    monkeypatch.setattr("orchestration.cli.measure.table_key", lambda *_: "abc")
    monkeypatch.setattr("orchestration.cli.measure._is_enough", lambda *_: True)
    store_table(Storage(str(tmp_path)), "abc", known)
    stored = measure(asked, no_line)
    assert (stored.table, stored.is_new) == (known, False)
    lines = table_lines(stored, Storage(str(tmp_path)))
    assert lines[0].startswith(f"table    {known.hardware}: {len(known.rows)} parts")
    just_now = table_lines(replace(stored, is_new=True), Storage(str(tmp_path)))
    assert [line.split()[0] for line in just_now] == [
        "file"
    ]  # the rest was logged while it was measured


def calibrated(number: int, others: tuple[str, ...], asked: MeasureJob) -> LatencyTable:
    def networks(names: Iterable[str]) -> tuple[MeasuredNetwork, ...]:
        facts: dict[str, Any] = {"ops": None, "parts_ms": 0.1, "measured_ms": 0.1, "spread": 0.0}
        return tuple(MeasuredNetwork(name=name, **facts) for name in names)

    known = Calibration(fitted=networks(["random"] * number), others=networks(others))
    return replace(table_of(asked.built_space(), by_kernel), calibration=known)


@pytest.mark.parametrize(
    ("number", "others", "is_enough"),
    [(36, ("resnet34",), True), (35, ("resnet34",), False), (36, (), False)],
)
def test_a_table_of_a_job_is_calibrated_on_as_many_networks_as_are_asked_for(
    tmp_path: Path, number: int, others: tuple[str, ...], is_enough: bool
) -> None:
    asked = job(tmp_path, "cpu", baselines=["resnet34"], space={"name": "proxyless_small"})
    assert _is_enough(calibrated(number, others, asked), asked) is is_enough


def test_a_noisy_table_in_storage_counts_only_where_it_is_accepted(tmp_path: Path) -> None:
    asked = job(tmp_path, "cpu", space={"name": "proxyless_small"})
    calm = table_of(asked.built_space(), by_kernel)
    noisy = replace(calm, rows=tuple(replace(row, spread=0.3) for row in calm.rows))
    storage = Storage(str(tmp_path))
    store_table(storage, "calm", calm)
    store_table(storage, "noisy", noisy)
    assert stored_table(storage, "calm", accept_noisy=False) == calm
    assert stored_table(storage, "noisy", accept_noisy=True) == noisy
    assert stored_table(storage, "noisy", accept_noisy=False) is None


def test_a_baseline_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="resnet35"):
        job(tmp_path, "cpu", baselines=["resnet35"])


@pytest.mark.parametrize(("name", "value"), [("resolution", 4), ("classes", 0), ("channels", 0)])
def test_images_that_cannot_be_are_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(SpecError, match=f"{name} is {value}; expected"):
        job(tmp_path, "cpu", **{name: value})
