"""Record a latency table in MLflow: a run with its errors, its file and its figure."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from mlflow.entities import Run

from nas_core.latency import LatencyTable
from orchestration.tracking.artifacts import upload
from orchestration.tracking.client import connected, experiment_id, ui_address
from orchestration.tracking.metrics import moment_ms, table_params, table_values
from orchestration.tracking.note import NOTE
from orchestration.tracking.retries import PatientClient
from orchestration.tracking.runs import FINISHED, KEY, KIND, RECORDED, Runs


def record_table(
    table: LatencyTable,
    key: str,
    picture: bytes,
    *,
    tracking_uri: str,
    experiment: str,
    folder: str | None = None,
) -> str:
    """Record a measured latency table in MLflow. Each measurement of a table gets one run.

    Args:
        table: with its date and calibration.
        key: its content key.
        picture: PNG of predicted against measured latency.
        tracking_uri: as for `record_job`.
        experiment: name of the experiment; created if missing.
        folder: parent of the artifacts if MLflow is a database without a server.

    Returns:
        Address of the run's page.

    Raises:
        RecordError: MLflow cannot be reached or written.
    """
    with connected(tracking_uri) as client:
        runs = Runs(client, experiment_id(client, tracking_uri, experiment, folder))
        name = f"{table.target} {table.space.name} {table.space.resolution} px"
        tags = {KIND: "table", KEY: key, FINISHED: table.date, NOTE: _note(table)}
        run = runs.run(name, tags, moment_ms(table.date))
        if RECORDED not in run.data.tags:
            runs.log(run, table_params(table), table_values(table))
            _write_files(client, run, table, picture)
            runs.close(run, moment_ms(table.date), "yes")
        page = f"{ui_address(tracking_uri)}/#/experiments/{runs.experiment_id}"
        return f"{page}/runs/{run.info.run_id}?workflowType=machine_learning"


def _note(table: LatencyTable) -> str:
    """Description of the run, in Markdown."""
    known = table.calibration
    lines = [
        f"**{table.hardware}**, {table.space.name} at {table.space.resolution} pixels: "
        f"{table.range_text()}."
    ]
    if known is not None and known.errors is not None:
        lines += ["", f"Predictions {known.errors.text()}."]
    if known is not None and known.others:
        lines += ["", "| network | measured ms |", "|---|---|"]
        lines += [f"| {network.name} | {network.measured_ms:.4g} |" for network in known.others]
    return "\n".join(lines)


def _write_files(client: PatientClient, run: Run, table: LatencyTable, picture: bytes) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "latency_table.json").write_text(json.dumps(table.to_dict(), indent=1), "utf-8")
        (folder / "calibration.png").write_bytes(picture)
        upload(client, folder, run.info.artifact_uri)
