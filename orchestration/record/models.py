"""Models of retrainings: logged with their files, registered, the best of them marked."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion

from cluster.storage import Storage
from orchestration.compare import best_result, keeps_budget
from orchestration.record.metrics import case_params
from orchestration.record.mlmodel import write_mlmodel
from orchestration.record.runs import FINISHED, KEY, Runs, tagged
from orchestration.result_values import Result

logger = logging.getLogger(__name__)

NUMBERS = ("budget_ms", "table_ms", "top1")
"""On every registered version, as tags."""
MEASURED = "measured_ms"
"""There too, where the target is measured."""
VERSIONS = "mlflow.modelVersions"
"""On a model: what the UI reads to lead from it to the registry."""
BEST = "best"
BUDGET = "budget-"
"""Before the milliseconds of a budget: the alias of the best version for it."""


@dataclass(frozen=True)
class Models:
    """The models of one job. Every method may be called again after it was interrupted."""

    runs: Runs
    job: Storage
    prefix: str
    """Of registered names: `<prefix>-<target>`."""

    @property
    def client(self) -> MlflowClient:
        """Where they are written."""
        return self.runs.client

    def model(self, run: Run, result: Result) -> LoggedModel:
        """The model of a retraining, with its files."""
        run_id = run.info.run_id
        found = self.client.search_logged_models(
            [self.runs.experiment_id], f"source_run_id = '{run_id}'"
        )
        model = found[0] if found else self._new_model(run_id, result)
        if model.status != LoggedModelStatus.READY:
            self._upload(model, run_id, f"cases/{result['case']}/model")
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        if not run.outputs or not run.outputs.model_outputs:
            output = LoggedModelOutput(model.model_id, step=len(result["retrain_history"]))
            self.client.log_outputs(run_id, [output])
        return model

    def registered(self, run: Run, model: LoggedModel, result: Result) -> ModelVersion:
        """The version that holds the model, made if missing, linked with it."""
        name = f"{self.prefix}-{result['target']}"
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        tags = {KEY: result["key"], FINISHED: result["finished"]}
        found = self.client.search_model_versions(f"name = '{name}' and {tagged(tags)}")
        version = found[0] if found else self._register(name, run, model, result, tags)
        if VERSIONS not in model.tags:
            link = json.dumps([{"name": name, "version": str(version.version)}])
            self.client.set_logged_model_tags(model.model_id, {VERSIONS: link})
        return version

    def mark_best(self, name: str) -> None:
        """Give the aliases to the versions of `name` that `best_result` picks: of all, and of those
        for each budget."""
        candidates = self._candidates(name)
        self._mark(name, BEST, candidates)
        for alias in dict.fromkeys(budget_alias(one["budget_ms"]) for one in candidates):
            same = [one for one in candidates if budget_alias(one["budget_ms"]) == alias]
            self._mark(name, alias, same)

    def _candidates(self, name: str) -> list[dict[str, Any]]:
        """Versions with what is to be known of them."""
        return [
            {MEASURED: None, "version": found.version}
            | {tag: float(found.tags[tag]) for tag in (*NUMBERS, MEASURED) if tag in found.tags}
            for found in self.client.search_model_versions(f"name = '{name}'")
            if found.tags.keys() >= set(NUMBERS)  # others may register under this name, too
        ]

    def _mark(self, name: str, alias: str, candidates: Sequence[dict[str, Any]]) -> None:
        best = best_result(candidates)
        if not keeps_budget(best):
            logger.warning(
                "no version of '%s' keeps its budget; '%s' is version %s, which misses it least",
                *(name, alias, best["version"]),
            )
        self.client.set_registered_model_alias(name, alias, str(best["version"]))

    def _register(
        self, name: str, run: Run, model: LoggedModel, result: Result, tags: dict[str, str]
    ) -> ModelVersion:
        facts = {"job": result["job"], "hardware": result["hardware"]}
        return self.client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=run.info.run_id,
            model_id=model.model_id,
            tags=tags | facts | _numbers(result),
            description=f"{result['case']} of job {result['job']}",
        )

    def _new_model(self, run_id: str, result: Result) -> LoggedModel:
        return self.client.create_logged_model(
            self.runs.experiment_id,
            name=result["case"].replace(".", "_"),  # MLflow allows no dot there
            source_run_id=run_id,
            params=case_params(result),
            model_type="image classifier",
        )

    def _upload(self, model: LoggedModel, run_id: str, key: str) -> None:
        identity = {"model_id": model.model_id, "run_id": run_id}
        with tempfile.TemporaryDirectory() as files, tempfile.TemporaryDirectory() as folder:
            self.job.copy_to(Path(files), self.job.list(key), below=key)
            write_mlmodel(Path(files), Path(folder), identity, model.artifact_location)
            self.client.log_model_artifacts(model.model_id, folder)


def budget_alias(budget_ms: float) -> str:
    """The alias of a budget: MLflow takes no dot, so 0.31 ms is `budget-0_31`."""
    return f"{BUDGET}{budget_ms:.4g}".replace(".", "_")


def _numbers(result: Result) -> dict[str, str]:
    """Tags of a version."""
    found = {name: result[name] for name in (*NUMBERS, MEASURED)}
    return {name: str(value) for name, value in found.items() if value is not None}
