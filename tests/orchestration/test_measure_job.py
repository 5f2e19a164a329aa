"""Tables that `proxyless measure` need not measure: shipped, kept, read from a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.latency_tables import store_table, stored_table
from orchestration.measure_job import MeasureJob, imported, measure, table_lines
from orchestration.spec import SpecError, check
from tests.orchestration.tables import by_kernel, table_of


def job(tmp_path: Path, target: str, **values: Any) -> MeasureJob:
    return check(MeasureJob, {"target": target, "storage": str(tmp_path), **values}, "measure")


def no_line(_text: str) -> None:
    raise AssertionError("nothing is measured")


def test_a_shipped_table_is_found_where_the_last_lines_say(tmp_path: Path) -> None:
    found = measure(job(tmp_path, "pixel1", space={"name": "proxyless_imagenet"}), no_line)
    place = next(line for line in table_lines(found, Storage(str(tmp_path))) if "file" in line)
    kept = json.loads(Path(place.removeprefix("file").strip()).read_text())
    assert LatencyTable.from_dict(kept) == found.table
    assert found.is_new is False


def test_a_table_of_a_file_is_kept(tmp_path: Path) -> None:
    small = {"space": {"name": "proxyless_small"}, "resolution": 32, "classes": 10, "channels": 1}
    asked = job(tmp_path, "board", targets={"board": {"table": "board.json"}}, **small)
    whole = table_of(asked.built_space(), by_kernel)
    (tmp_path / "board.json").write_text(json.dumps(whole.to_dict()))
    found = imported(asked, tmp_path / "board.json")
    assert stored_table(Storage(str(tmp_path)), found.key) == found.table
    assert found.table.hardware == whole.hardware  # where it was measured, whatever it is called
    assert found.table.reference_ms == pytest.approx(6 * 0.03 + 0.02)


def test_a_table_that_was_measured_before_is_taken_from_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = job(tmp_path, "cpu", space={"name": "proxyless_small"}, resolution=32)
    known = table_of(asked.built_space(), by_kernel)
    monkeypatch.setattr("orchestration.measure_job.table_key", lambda *_: "abc")
    store_table(Storage(str(tmp_path)), "abc", known)
    found = measure(asked, no_line)
    assert (found.table, found.is_new) == (known, False)
    lines = table_lines(found, Storage(str(tmp_path)))
    assert lines[0].startswith(f"table    {known.hardware}: {len(known.rows)} parts")
    just_now = table_lines(replace(found, is_new=True), Storage(str(tmp_path)))
    assert [line.split()[0] for line in just_now] == ["file"]  # the rest was said meanwhile


def test_a_baseline_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="resnet35"):
        job(tmp_path, "cpu", baselines=["resnet35"])


@pytest.mark.parametrize(("name", "value"), [("resolution", 4), ("classes", 0), ("channels", 0)])
def test_images_that_cannot_be_are_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(SpecError, match=f"{name} is {value}; expected"):
        job(tmp_path, "cpu", **{name: value})
