"""A job in a storage, an empty MLflow, and the way to record one in the other."""

import re
import shutil
from pathlib import Path

from mlflow import MlflowClient

from cluster.storage import Storage
from orchestration.record import record_job
from tests.orchestration.job_folder import (
    result,
    write_job,
)

CASE, REFERENCE = "mobile-0.31ms", "mobile-reference"


class Place:
    def __init__(self, root: Path, database: Path, model: Path) -> None:
        self.root, self.model = root, model
        self.write([result(CASE), result(REFERENCE)])
        shutil.copy(database, root / "mlflow.db")
        self.uri = f"sqlite:///{root}/mlflow.db"
        self.client = MlflowClient(self.uri)

    def write(self, results):
        """Replace the cases in storage."""
        shutil.rmtree(self.root / "search_mobile", ignore_errors=True)
        self.job = write_job(self.root, results, self.model)

    def record(self, uri=None):
        tables = Storage(str(self.root / "tables"))
        return record_job(self.job, tables, tracking_uri=uri or self.uri, experiment="digits")

    def runs(self, kind):
        """Runs of a kind, by name."""
        found = self.client.search_runs(["1"], f"tags.`proxyless.kind` = '{kind}'")
        return {run.info.run_name: run for run in found}

    def artifacts(self, run):
        return {file.path for file in self.client.list_artifacts(run.info.run_id)}

    def state(self):
        """All that MLflow holds, without ids."""
        runs = self.client.search_runs(["1"], order_by=["attributes.run_name"])
        versions = self.client.search_model_versions("name = 'digits-mobile'")
        models = self.client.search_logged_models(["1"])
        return {
            "runs": [self._run_state(run) for run in runs],
            "models": sorted((model.name, str(model.status)) for model in models),
            "versions": [(v.version, sorted(v.tags.items()), v.aliases) for v in versions],
        }

    def _run_state(self, run):
        tags = {k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"}
        tags = {k: re.sub(r"(?:%22)?[0-9a-f]{32}", "<run>", v) for k, v in tags.items()}
        history = {
            name: [
                (m.step, m.value, m.timestamp)
                for m in self.client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
        }
        facts = (
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            len(run.outputs.model_outputs),
        )
        return tags, run.data.params, history, facts, self.artifacts(run)
