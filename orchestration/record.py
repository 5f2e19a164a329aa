"""Write a job into MLflow, from its files in storage. The only module that imports mlflow.

    experiment
      job                    parent run: job file, settings, comparison
        mobile-0.31ms        child: what was asked and found, search curves, architecture
          retrain            grandchild: training curves and the model, registered
        mobile-reference     the network to beat; its model is logged and not registered, and so
                             are those of baselines and given architectures

Storage is the truth: recording reads it and changes nothing there. A run is found again by its tags
and gets the tag `proxyless.recorded` when all of it is written, so that recording twice gives the
same runs, and one that was killed is completed.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Param, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.compare import Result, best_result, keeps_budget, read_results
from orchestration.export import FACTS, PROGRAM
from orchestration.metrics import (
    METRICS,
    MODEL_METRICS,
    Value,
    case_params,
    curves,
    final_values,
    finished_ms,
    moment_ms,
    ranking_values,
    settings_params,
    started_ms,
    table_params,
    table_values,
)
from orchestration.mlmodel import DATA, EXTRA, write_mlmodel

logger = logging.getLogger(__name__)

NUMBERS = ("budget_ms", "table_ms", "top1")
"""On every registered version, as tags."""
MEASURED = "measured_ms"
"""There too, where the target is measured."""
KIND, KEY, FINISHED = "proxyless.kind", "proxyless.key", "proxyless.finished"
RECORDED = "proxyless.recorded"
PARENT = "mlflow.parentRunId"
VERSIONS = "mlflow.modelVersions"
"""On a model: what the UI reads to lead from it to the registry."""
CASE_FILES = ("architecture.json", "result.json")
BEST = "best"
VIEW = "proxyless"
"""A view of the experiment's page: what "share view" would store under this name."""
VIEW_STATE = {
    "searchFilter": f"tags.`{KIND}` = 'case'",
    "orderByKey": "metrics.`measured_ms`",
    "orderByAsc": True,
    "selectedColumns": [
        *(f"metrics.`{name}`" for name in ("measured_ms", "table_ms", "top1", "params")),
        *(f"params.`{name}`" for name in ("target", "budget_ms")),
    ],
}


class RecordError(Exception):
    """MLflow did not take, or does not have, what was asked for. Storage has it all the same."""


@dataclass(frozen=True, kw_only=True)
class RecordLinks:
    """Where a person finds what was recorded."""

    runs: str
    """The experiment's page, in the view that shows runs: jobs, with their cases folded."""

    cases: str
    """The same page with all cases unfolded and their figures in columns."""

    compare: str
    """All cases of the job and the reference, side by side."""

    models: tuple[str, ...]
    """Registered versions, as `models:/digits-mobile/1`."""


def record_job(job: Storage, tables: Storage, *, tracking_uri: str, experiment: str) -> RecordLinks:
    """Write what a job has in storage into MLflow: what is missing there, and nothing twice.

    Args:
        job: the job's folder, with `job.json` and `cases/*/result.json`.
        tables: the folder of the latency tables.
        tracking_uri: a server, or `sqlite:///...`; beside a SQLite file lie the artifacts.
        experiment: made if missing.

    Raises:
        RecordError: MLflow cannot be reached or written. The same call goes on from there.
        StorageError: the job's files cannot be read.
    """
    with _record_errors(tracking_uri):
        client = MlflowClient(tracking_uri)
        recorder = _Recorder(client, _experiment_id(client, tracking_uri, experiment), job, tables)
        return recorder.record(ui_address(tracking_uri))


def record_table(
    table: LatencyTable, key: str, picture: bytes, *, tracking_uri: str, experiment: str
) -> str:
    """Write a measured latency table into MLflow, once.

    Args:
        table: with its calibration.
        key: its content address.
        picture: predicted against measured latency.
        tracking_uri: as for `record_job`.
        experiment: made if missing.

    Returns:
        The page of its run.

    Raises:
        RecordError: MLflow cannot be reached or written.
    """
    with _record_errors(tracking_uri):
        client = MlflowClient(tracking_uri)
        place = _experiment_id(client, tracking_uri, experiment)
        tags = {KIND: "table", KEY: key}
        found = client.search_runs([place], _tagged(tags))
        run = found[0] if found else _table_run(client, place, tags, table)
        if RECORDED not in run.data.tags:
            _write_table(client, run.info.run_id, table, picture)
        return f"{ui_address(tracking_uri)}/#/experiments/{place}/runs/{run.info.run_id}"


def _table_run(
    client: MlflowClient, experiment_id: str, tags: dict[str, str], table: LatencyTable
) -> Run:
    name = f"{table.target} {table.space.name} {table.space.resolution} px"
    started = moment_ms(table.date) if table.date else None
    return client.create_run(experiment_id, started, tags, name)


def _write_table(client: MlflowClient, run_id: str, table: LatencyTable, picture: bytes) -> None:
    params = [Param(name, value) for name, value in table_params(table).items()]
    metrics = [Metric(*value) for value in table_values(table)]
    client.log_batch(run_id, metrics=metrics, params=params)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "latency_table.json").write_text(json.dumps(table.to_dict(), indent=1), "utf-8")
        (folder / "calibration.png").write_bytes(picture)
        client.log_artifacts(run_id, temporary)
    client.set_terminated(run_id)
    client.set_tag(run_id, RECORDED, "yes")


def fetch_model(uri: str, tracking_uri: str, folder: Path) -> Path:
    """Copy a recorded model to `folder`, in the form that `export.load_model` reads.

    Args:
        uri: `models:/digits-mobile/1`, `models:/digits-mobile@best` or `runs:/<run id>`.
        tracking_uri: as for `record_job`.
        folder: made if missing.

    Raises:
        RecordError: there is no such model, or it was not recorded by this project.
    """
    with _record_errors(tracking_uri), tempfile.TemporaryDirectory() as temporary:
        # MLflow's own resolution of such URIs asks the tracking URI of the process, not this one.
        place = _place(MlflowClient(tracking_uri), uri)
        found = Path(
            mlflow.artifacts.download_artifacts(place, None, None, temporary, tracking_uri)
        )
        if not ((found / DATA / PROGRAM).is_file() and (found / EXTRA / FACTS).is_file()):
            raise RecordError(f"{uri} has no {PROGRAM} and {FACTS}; expected a model of a job")
        folder.mkdir(parents=True, exist_ok=True)
        for path in [found / DATA / PROGRAM, *(found / EXTRA).iterdir()]:
            shutil.copy(path, folder)
    return folder


def _place(client: MlflowClient, uri: str) -> str:
    """Where the files of the model lie that a URI names."""
    if found := re.fullmatch(r"runs:/([^/]+)(/.*)?", uri):
        outputs = client.get_run(found[1]).outputs
        if not outputs or not outputs.model_outputs:
            raise RecordError(f"{uri} has no model; expected the run of a retraining")
        return str(client.get_logged_model(outputs.model_outputs[0].model_id).artifact_location)
    if found := re.fullmatch(r"models:/([^/@]+)/(\d+)", uri):
        return str(client.get_model_version_download_uri(found[1], found[2]))
    if found := re.fullmatch(r"models:/([^/@]+)@([^/]+)", uri):
        version = client.get_model_version_by_alias(found[1], found[2]).version
        return str(client.get_model_version_download_uri(found[1], version))
    raise RecordError(
        f"{uri!r} names no model; expected e.g. models:/digits-mobile/1, "
        "models:/digits-mobile@best or runs:/<run id>"
    )


def ui_address(tracking_uri: str) -> str:
    """Where the UI of a tracking server is; for a SQLite file, where `make ui` opens it."""
    if not tracking_uri.startswith(("http://", "https://")):
        return "http://127.0.0.1:5000"
    return _without_password(tracking_uri).rstrip("/")


class _Recorder:
    """Writes one job. Every method may be called again after it was interrupted."""

    def __init__(
        self, client: MlflowClient, experiment_id: str, job: Storage, tables: Storage
    ) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.job = job
        self.tables = tables
        self.facts: dict[str, Any] = job.read_json("job.json")

    def record(self, ui: str) -> RecordLinks:
        self._share_view()
        results = read_results(self.job)
        submitted = moment_ms(self.facts["submitted"])
        tags = {KIND: "job", KEY: self.facts["key"], **self._commit()}
        parent = self._run(self.facts["name"], tags, min([submitted, *map(started_ms, results)]))
        cases = [self._case(parent, result) for result in results]
        models = [model for _, model in cases if model is not None]
        for name in {model.name for model in models}:
            self._mark_best(name)
        # A job that was stopped and went on has more cases than when it was recorded last.
        state = " ".join(sorted(result["key"] for result in results))
        if parent.data.tags.get(RECORDED) != state:
            self._write_job(parent)
            self._close(parent, max([submitted, *map(finished_ms, results)]), state)
        return self._links(ui, [run_id for run_id, _ in cases], models)

    def _share_view(self) -> None:
        tag, state = f"mlflow.sharedViewState.{VIEW}", json.dumps(VIEW_STATE)
        if self.client.get_experiment(self.experiment_id).tags.get(tag) != state:
            self.client.set_experiment_tag(self.experiment_id, tag, state)

    def _commit(self) -> dict[str, str]:
        commit = self.facts.get("git_commit")
        return {"mlflow.source.git.commit": commit} if commit else {}

    def _write_job(self, run: Run) -> None:
        self._log(run, settings_params(self.facts["settings"]), self._table_values())
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / f"{self.facts['name']}.yaml").write_text(self.facts["job_file"], "utf-8")
            self._copy(["job.json", *self.job.list("comparison")], folder)
            self.client.log_artifacts(run.info.run_id, temporary)

    def _table_values(self) -> list[Value]:
        """How right the latency table of each target is: `latency_mape/mobile` and the like."""
        keys = self.facts.get("plan", {}).get("tables", {}).items()
        known = [
            (target, f"{key}.json") for target, key in keys if self.tables.exists(f"{key}.json")
        ]
        return [
            value
            for target, place in known
            for value in table_values(LatencyTable.from_dict(self.tables.read_json(place)), target)
        ]

    def _case(self, parent: Run, result: Result) -> tuple[str, ModelVersion | None]:
        """Id of the run of a case, and its registered model, if there is one."""
        tags = self._case_tags("case", parent, result)
        run = self._run(result["case"], tags, started_ms(result))
        if RECORDED not in run.data.tags:
            self._write_case(run, result)
        has_model = self.job.exists(f"cases/{result['case']}/model")
        model = self._retrain(run, result) if has_model else None
        if RECORDED not in run.data.tags:
            self._close(run, finished_ms(result), "yes")
        return run.info.run_id, model

    def _case_tags(self, kind: str, parent: Run, result: Result) -> dict[str, str]:
        return {
            KIND: kind,
            KEY: result["key"],
            FINISHED: result["finished"],
            PARENT: parent.info.run_id,
            "hardware": result["hardware"],
            "stand_in": str(result["stand_in"]).lower(),
            "kind": result["kind"],
            "status": "done",  # what is not done has no result to record
        }

    def _write_case(self, run: Run, result: Result) -> None:
        values = final_values(METRICS, result) + ranking_values(result)
        values += curves("search", result["search_history"])
        self._log(run, case_params(result), values)
        case, picture = f"cases/{result['case']}", f"comparison/{result['case']}.png"
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            self._copy([f"{case}/{name}" for name in CASE_FILES], folder, below=case)
            table = self.tables.read_bytes(f"{result['table_key']}.json")
            (folder / "latency_table.json").write_bytes(table)
            if self.job.exists(picture):
                (folder / "architecture.png").write_bytes(self.job.read_bytes(picture))
            self.client.log_artifacts(run.info.run_id, temporary)

    def _retrain(self, parent: Run, result: Result) -> ModelVersion | None:
        """The registered model of a search; those that it is compared with are not registered."""
        tags = self._case_tags("retrain", parent, result)
        run = self._run(f"{result['case']} retrain", tags, started_ms(result, ["retrain"]))
        model = self._model(run, result)
        if RECORDED not in run.data.tags:
            self._log(run, {}, curves("retrain", result["retrain_history"]))
            self._log(run, {}, final_values(MODEL_METRICS, result), model.model_id)
            self._close(run, finished_ms(result), "yes")
        return self._registered(run, model, result) if result["kind"] == "search" else None

    def _model(self, run: Run, result: Result) -> LoggedModel:
        """The model of a retraining, with its files."""
        run_id = run.info.run_id
        found = self.client.search_logged_models(
            [self.experiment_id], f"source_run_id = '{run_id}'"
        )
        model = found[0] if found else self._new_model(run_id, result)
        if model.status != LoggedModelStatus.READY:
            self._upload(model, run_id, f"cases/{result['case']}/model")
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        if not run.outputs or not run.outputs.model_outputs:
            output = LoggedModelOutput(model.model_id, step=len(result["retrain_history"]))
            self.client.log_outputs(run_id, [output])
        return model

    def _new_model(self, run_id: str, result: Result) -> LoggedModel:
        return self.client.create_logged_model(
            self.experiment_id,
            name=result["case"].replace(".", "_"),  # MLflow allows no dot there
            source_run_id=run_id,
            params=case_params(result),
            model_type="image classifier",
        )

    def _upload(self, model: LoggedModel, run_id: str, key: str) -> None:
        identity = {"model_id": model.model_id, "run_id": run_id}
        with tempfile.TemporaryDirectory() as files, tempfile.TemporaryDirectory() as folder:
            self._copy(self.job.list(key), Path(files), below=key)
            write_mlmodel(Path(files), Path(folder), identity, model.artifact_location)
            self.client.log_model_artifacts(model.model_id, folder)

    def _registered(self, run: Run, model: LoggedModel, result: Result) -> ModelVersion:
        name = f"{self.facts['registered_prefix']}-{result['target']}"
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        tags = {KEY: result["key"], FINISHED: result["finished"]}
        found = self.client.search_model_versions(f"name = '{name}' and {_tagged(tags)}")
        version = found[0] if found else self._register(name, run, model, result, tags)
        if VERSIONS not in model.tags:
            link = json.dumps([{"name": name, "version": str(version.version)}])
            self.client.set_logged_model_tags(model.model_id, {VERSIONS: link})
        return version

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

    def _mark_best(self, name: str) -> None:
        candidates = [
            {MEASURED: None, "version": found.version}
            | {tag: float(found.tags[tag]) for tag in (*NUMBERS, MEASURED) if tag in found.tags}
            for found in self.client.search_model_versions(f"name = '{name}'")
            if found.tags.keys() >= set(NUMBERS)  # others may register under this name, too
        ]
        best = best_result(candidates)
        if not keeps_budget(best):
            logger.warning(
                "no version of '%s' keeps its budget; '%s' is version %s, which misses it least",
                *(name, BEST, best["version"]),
            )
        self.client.set_registered_model_alias(name, BEST, str(best["version"]))

    def _run(self, name: str, tags: dict[str, str], started: int) -> Run:
        """The run with these tags, made if missing."""
        identity = {tag: tags[tag] for tag in (KIND, KEY, FINISHED, PARENT) if tag in tags}
        found = self.client.search_runs([self.experiment_id], _tagged(identity))
        return found[0] if found else self._new_run(name, tags, started)

    def _new_run(self, name: str, tags: dict[str, str], started: int) -> Run:
        return self.client.create_run(self.experiment_id, started, tags, name)

    def _close(self, run: Run, finished: int, state: str) -> None:
        self.client.set_terminated(run.info.run_id, "FINISHED", finished)
        self.client.set_tag(run.info.run_id, RECORDED, state)

    def _log(
        self,
        run: Run,
        params: Mapping[str, str],
        values: Sequence[Value] = (),
        model_id: str | None = None,
    ) -> None:
        # Params that the run has stay as they are: MLflow refuses to change them.
        new = [Param(key, value) for key, value in params.items() if key not in run.data.params]
        metrics = [Metric(*value, model_id) for value in values]
        for start in range(0, len(new), 100):  # as many as MLflow takes at once
            self.client.log_batch(run.info.run_id, params=new[start : start + 100])
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run.info.run_id, metrics=metrics[start : start + 1000])

    def _copy(self, keys: Sequence[str], folder: Path, below: str = "") -> None:
        """Copy files of the job, under their names below `below`."""
        for key in keys:
            path = folder / key.removeprefix(f"{below}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.job.read_bytes(key))

    def _links(self, ui: str, runs: list[str], models: Sequence[ModelVersion]) -> RecordLinks:
        page = f"{ui}/#/experiments/{self.experiment_id}/runs?workflowType=machine_learning"
        compared = f"runs={_quoted(runs)}&experiments={_quoted([self.experiment_id])}"
        return RecordLinks(
            runs=page,
            cases=f"{page}&viewStateShareKey={VIEW}",
            compare=f"{ui}/#/compare-runs?{compared}",
            models=tuple(f"models:/{model.name}/{model.version}" for model in models),
        )


def _numbers(result: Result) -> dict[str, str]:
    """Tags of a version."""
    found = {name: result[name] for name in (*NUMBERS, MEASURED)}
    return {name: str(value) for name, value in found.items() if value is not None}


def _tagged(tags: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())


def _quoted(ids: list[str]) -> str:
    return quote(json.dumps(ids, separators=(",", ":")))


def _experiment_id(client: MlflowClient, tracking_uri: str, name: str) -> str:
    prefix = "sqlite:///"
    place = None
    if tracking_uri.startswith(prefix):
        # MLflow would put them below the working directory, which a submitted job loses.
        folder = Path(tracking_uri.removeprefix(prefix)).absolute().parent
        place = str(folder / "mlflow-artifacts")
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=place))
    if found.lifecycle_stage != "active":
        raise RecordError(
            f"experiment '{name}' was deleted in MLflow; restore it with "
            f"`mlflow experiments restore -x {found.experiment_id}` or name another"
        )
    return str(found.experiment_id)


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)


@contextmanager
def _record_errors(tracking_uri: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # MLflow's own use of SQLAlchemy, which the reader can do nothing about.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RecordError(_without_password(f"MLflow at {tracking_uri}: {reason}")) from error
