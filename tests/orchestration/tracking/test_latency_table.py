from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nas_core.calibration import Calibration, Errors, MeasuredNetwork
from nas_core.latency import LatencyTable
from orchestration.tracking import record_table
from tests.support.job_folder import latency_table
from tests.support.recording import Place

# Raised by MLflow 3.17 with SQLAlchemy 2.1; recording hides it from its callers.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

DATE = "2026-11-24T10:00:00+00:00"


def measured_table() -> LatencyTable:
    one = MeasuredNetwork(name="random", ops=None, parts_ms=0.1, measured_ms=0.11, spread=0.02)
    errors = Errors.of([1.0, 2.0, 3.3], [1.0, 2.0, 3.0])
    known = Calibration(fitted=(one,), errors=errors, others=(replace(one, name="mine"),))
    return replace(
        latency_table(), calibration=known, date=DATE, scale=1.1, device={"cpu": "one that is"}
    )


def record(place: Place, table: LatencyTable, key: str = "abc") -> str:
    uri = place.uri
    return record_table(table, key, b"png", tracking_uri=uri, experiment="latency tables")


def run_of(link: str) -> str:
    return link.rpartition("/")[2].partition("?")[0]


@pytest.mark.slow
def test_a_table_is_a_run_with_its_errors_and_what_was_measured(place: Place) -> None:
    link = record(place, measured_table())
    run = place.client.get_run(run_of(link))
    assert run.info.status == "FINISHED"
    assert run.data.params["hardware"] == "mobile on host x86-64 (XNNPACK)"
    assert run.data.params["device.cpu"] == "one that is"
    assert run.data.metrics["latency_mape"] == pytest.approx(0.1 / 3)
    assert run.data.metrics["latency_spearman"] == pytest.approx(1)
    assert run.data.metrics["latency_scale"] == 1.1
    note = run.data.tags["mlflow.note.content"]
    assert "| mine | 0.11 |" in note
    assert "Predictions on 3 networks that had no part in the fit: mean error 3.3%" in note


@pytest.mark.slow
def test_a_table_is_recorded_with_its_file_and_picture(place: Place, tmp_path: Path) -> None:
    table = measured_table()
    run_id = run_of(record(place, table))
    files = {file.path for file in place.client.list_artifacts(run_id)}
    assert files == {"latency_table.json", "calibration.png"}
    kept = Path(place.client.download_artifacts(run_id, "latency_table.json", str(tmp_path)))
    assert LatencyTable.from_dict(json.loads(kept.read_text())) == table


@pytest.mark.slow
def test_a_table_is_recorded_once_and_another_beside_it(place: Place) -> None:
    first = record(place, measured_table())
    assert record(place, measured_table()) == first
    assert record(place, measured_table(), key="def") != first
    later = replace(measured_table(), date="2026-11-25T10:00:00+00:00", scale=1.2)
    again = record(place, later)
    assert again != first
    assert place.client.get_run(run_of(again)).data.metrics["latency_scale"] == 1.2
