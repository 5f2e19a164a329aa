"""Runs of an experiment: found again by their tags, filled, closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run

from orchestration.record.metrics import Value

KIND, KEY, FINISHED = "proxyless.kind", "proxyless.key", "proxyless.finished"
RECORDED = "proxyless.recorded"
JOB = "proxyless.job"
"""Key of the job, on its run and on those of its cases."""
PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class Runs:
    """The runs of one experiment. Every method may be called again after it was interrupted."""

    client: MlflowClient
    experiment_id: str

    def run(self, name: str, tags: dict[str, str], started: int) -> Run:
        """The run with these tags, made if missing; it takes the name that it has by now."""
        identity = {tag: tags[tag] for tag in (KIND, KEY, FINISHED, PARENT) if tag in tags}
        found = self.client.search_runs([self.experiment_id], tagged(identity))
        if not found:
            return self._new(name, tags, started)
        if found[0].info.run_name != name:
            self.client.update_run(found[0].info.run_id, name=name)
        return found[0]

    def close(self, run: Run, finished: int, state: str) -> None:
        """Say that all of it is written."""
        self.client.set_terminated(run.info.run_id, "FINISHED", finished)
        self.client.set_tag(run.info.run_id, RECORDED, state)

    def log(
        self,
        run: Run,
        params: Mapping[str, str],
        values: Sequence[Value] = (),
        model_id: str | None = None,
    ) -> None:
        """Write params and values, the values for a model too where one is named."""
        # Params that the run has stay as they are: MLflow refuses to change them.
        new = [Param(key, value) for key, value in params.items() if key not in run.data.params]
        metrics = [Metric(*value, model_id) for value in values]
        for start in range(0, len(new), 100):  # as many as MLflow takes at once
            self.client.log_batch(run.info.run_id, params=new[start : start + 100])
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run.info.run_id, metrics=metrics[start : start + 1000])

    def _new(self, name: str, tags: dict[str, str], started: int) -> Run:
        return self.client.create_run(self.experiment_id, started, tags, name)


def tagged(tags: Mapping[str, str]) -> str:
    """The filter that finds what has these tags."""
    return " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
