"""Write a latency table into MLflow: a run with its errors, its file and its picture."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from nas_core.latency import LatencyTable
from orchestration.record.client import experiment_id, record_errors, ui_address
from orchestration.record.metrics import moment_ms, table_params, table_values
from orchestration.record.runs import KEY, KIND, RECORDED, Runs


def record_table(
    table: LatencyTable, key: str, picture: bytes, *, tracking_uri: str, experiment: str
) -> str:
    """Write a measured latency table into MLflow, once.

    Args:
        table: with its date and calibration.
        key: its content address.
        picture: predicted against measured latency.
        tracking_uri: as for `record_job`.
        experiment: made if missing.

    Returns:
        The page of its run.

    Raises:
        RecordError: MLflow cannot be reached or written.
    """
    with record_errors(tracking_uri):
        client = MlflowClient(tracking_uri)
        runs = Runs(client, experiment_id(client, tracking_uri, experiment))
        name = f"{table.target} {table.space.name} {table.space.resolution} px"
        run = runs.run(name, {KIND: "table", KEY: key}, moment_ms(table.date))
        if RECORDED not in run.data.tags:
            runs.log(run, table_params(table), table_values(table))
            _write_files(client, run, table, picture)
            runs.close(run, moment_ms(table.date), "yes")
        page = f"{ui_address(tracking_uri)}/#/experiments/{runs.experiment_id}"
        return f"{page}/runs/{run.info.run_id}"


def _write_files(client: MlflowClient, run: Run, table: LatencyTable, picture: bytes) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "latency_table.json").write_text(json.dumps(table.to_dict(), indent=1), "utf-8")
        (folder / "calibration.png").write_bytes(picture)
        client.log_artifacts(run.info.run_id, temporary)
