"""A job in a storage and an empty MLflow database to record it in."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient

from cluster.storage import Storage
from orchestration import tracking
from orchestration.tracking import record_job
from tests.support.job_folder import (
    result,
    write_job,
)

REPOSITORY = Path(tracking.__file__).parents[2]
CASE, REFERENCE = "mobile-0.31ms", "mobile-reference"


class Place:
    """A job that is recorded into its own SQLite file, or to the given `uri`."""

    def __init__(self, root: Path, database: Path, model: Path, experiment: str = "digits") -> None:
        self.root, self.model, self.experiment = root, model, experiment
        self.write([result(CASE), result(REFERENCE)])
        shutil.copy(database, root / "mlflow.db")
        self.uri = f"sqlite:///{root}/mlflow.db"
        self.client = MlflowClient(self.uri)

    def write(self, results):
        """Replace the cases in the storage."""
        shutil.rmtree(self.root / "search_mobile", ignore_errors=True)
        self.job = write_job(self.root, results, self.model)
        facts = self.job.read_json("job.json")
        self.job.write_json("job.json", facts | {"registered_prefix": self.experiment})

    def record(self, uri=None, **named):
        tables = Storage(str(self.root / "tables"))
        return record_job(
            self.job, tables, tracking_uri=uri or self.uri, experiment=self.experiment, **named
        )

    def recorded(self):
        """Record the job and return the state of MLflow."""
        self.record()
        return self.state()

    @property
    def experiment_id(self):
        return self.client.get_experiment_by_name(self.experiment).experiment_id

    def runs(self, kind):
        """Runs of a kind, by name."""
        actual = self.client.search_runs([self.experiment_id], f"tags.`proxyless.kind` = '{kind}'")
        return {run.info.run_name: run for run in actual}

    def artifacts(self, run):
        return {file.path for file in self.client.list_artifacts(run.info.run_id)}

    def files(self, place):
        """Files below an artifact location."""
        folder = Path(place)
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

    def state(self):
        """Everything that MLflow holds, without IDs."""
        experiment, name = self.experiment_id, f"{self.experiment}-mobile"
        runs = self.client.search_runs([experiment], order_by=["attributes.run_name"])
        versions = self.client.search_model_versions(f"name = '{name}'")
        models = self.client.search_logged_models([experiment])
        names = {run.info.run_id: run.info.run_name for run in runs}
        return {
            "tags": self.client.get_experiment(experiment).tags,
            "runs": [(run.info.run_name, self._run_state(run, names)) for run in runs],
            "models": sorted(self._model_state(model, names) for model in models),
            "versions": sorted(
                (v.version, sorted(v.tags.items()), v.aliases, names[v.run_id]) for v in versions
            ),
            "names": sorted(
                item.name.removeprefix(self.experiment)
                for item in self.client.search_registered_models()
                if item.name.startswith(f"{self.experiment}-")
            ),
        }

    def _model_state(self, model, names):
        shown = json.loads(model.tags.get("mlflow.modelVersions", "[]"))
        versions = [item["version"] for item in shown]
        metrics = sorted((m.key, m.value, m.step, m.timestamp) for m in model.metrics)
        run, files = names[model.source_run_id], self.files(model.artifact_location)
        return model.name, str(model.status), run, versions, metrics, model.params, files

    def _run_state(self, run, names):
        tags = {k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"}
        parent = names.get(run.data.tags.get("mlflow.parentRunId"))
        ids = r"(?:%22)?[0-9a-f]{32}|experiments=%5B%22\d+|experiments/\d+|models:/[^@`]+"
        tags = {k: re.sub(ids, "<id>", v) for k, v in tags.items()}
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
        files = self.files(run.info.artifact_uri)
        return tags, parent, run.data.params, history, facts, files


def plan_facts(*cases):
    """Plan of a job on digits, with these cases."""
    facts = {"count": 1797, "test_count": 449, "resolution": 32, "channels": 1}
    data = facts | {"classes": list("0123456789"), "fingerprint": "digits/1"}
    return {"data": data, "cases": cases}


def describe(place, **changes):
    """Change facts of the job, which then has settings of its images too."""
    values = place.job.read_json("job.json")
    values["settings"]["data"] = {"source": "digits", "path": None}
    place.job.write_json("job.json", values | changes)


class ServerPlace(Place):
    """A job that is recorded to a server, whose data is in a folder of this host.

    The state is read from that folder.
    """

    def __init__(self, root: Path, model: Path, server: Path, uri: str, experiment: str) -> None:
        self.root, self.model, self.experiment, self.server = root, model, experiment, server
        self.write([result(CASE), result(REFERENCE)])
        self.uri = uri
        self.client = MlflowClient(f"sqlite:///{server}/server.db")

    def files(self, place):
        return super().files(place.replace("mlflow-artifacts:", f"{self.server}/artifacts"))


RECORDING = """
import sys
from cluster.storage import Storage
from orchestration.tracking import record_job

folder, uri, experiment = sys.argv[1:]
root = Storage(folder)
record_job(root.sub("search_mobile"), root.sub("tables"), tracking_uri=uri, experiment=experiment)
"""


def recorder(place, code=RECORDING):
    """Start a process that records the job."""
    words = [sys.executable, "-c", code, str(place.root), place.uri, place.experiment]
    return subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE)
