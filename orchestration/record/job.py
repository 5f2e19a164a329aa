"""Write a job into MLflow: its run, its cases, their retrainings."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.compare import read_results
from orchestration.keys import digest
from orchestration.pictures import INDEX
from orchestration.record.client import experiment_id, record_errors, ui_address
from orchestration.record.data_set import Images
from orchestration.record.metrics import (
    METRICS,
    MODEL_METRICS,
    Value,
    case_params,
    curves,
    final_values,
    finished_ms,
    moment_ms,
    ranking_values,
    run_values,
    settings_params,
    started_ms,
    system_values,
    table_values,
)
from orchestration.record.models import Models
from orchestration.record.note import NOTE, job_note
from orchestration.record.runs import FINISHED, JOB, KEY, KIND, PARENT, RECORDED, Runs, tagged
from orchestration.record.views import share_cases, share_job
from orchestration.result_values import Result

CASE_FILES = ("architecture.json", "probabilities.json", "result.json")
PICTURES = {"architecture.png": ".png", "search.png": "-search.png"}
"""Of a case: their names in MLflow, and how those in storage end."""
FAILED = "failed"
TRAINING = "?workflowType=machine_learning"
"""Without it the UI opens pages in its view for language models."""


@dataclass(frozen=True, kw_only=True)
class RecordLinks:
    """Where a person finds what was recorded."""

    report: str
    """The page of the job's run: its tables, its files."""

    runs: str
    """The experiment's page: the job and its cases, with their figures in columns."""

    cases: str
    """The same page with the cases of all jobs."""

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
    with record_errors(tracking_uri):
        client = MlflowClient(tracking_uri)
        runs = Runs(client, experiment_id(client, tracking_uri, experiment))
        return _Recorder(runs, job, tables).record(ui_address(tracking_uri))


class _Recorder:
    """Writes one job. Every method may be called again after it was interrupted."""

    def __init__(self, runs: Runs, job: Storage, tables: Storage) -> None:
        self.runs = runs
        self.client = runs.client
        self.job = job
        self.tables = tables
        self.facts: dict[str, Any] = job.read_json("job.json")
        self.failed: dict[str, str] = self.facts.get("failed", {})
        self.models = Models(runs, job, self.facts["registered_prefix"])

    def record(self, ui: str) -> RecordLinks:
        results = read_results(self.job)
        submitted = moment_ms(self.facts["submitted"])
        tags = {KIND: "job", KEY: self.facts["key"], JOB: self.facts["key"], **self._commit()}
        parent = self.runs.run(
            self.facts["name"], tags, min([submitted, *map(started_ms, results)])
        )
        cases = [self._case(parent, result) for result in results]
        models = [model for _, model in cases if model is not None]
        for name in {model.name for model in models}:
            self.models.mark_best(name)
        self._failures(parent)
        links = self._links(ui, parent, [run_id for run_id, _ in cases], models)
        # A job that was stopped and went on has more cases than when it was recorded last.
        state = digest({"done": sorted(one["key"] for one in results), "failed": self.failed})
        if parent.data.tags.get(RECORDED) != state:
            self._write_job(parent)
            self._note(parent, results, links)
            self.runs.close(parent, max([submitted, *map(finished_ms, results)]), state)
        return links

    def _note(self, parent: Run, results: Sequence[Result], links: RecordLinks) -> None:
        """On top of the job's page; links without the server's address work wherever it is."""
        compare, cases = (link[link.index("#") :] for link in (links.compare, links.cases))
        text = job_note(self.facts, results, compare, cases)
        self.client.set_tag(parent.info.run_id, NOTE, text)

    def _failures(self, parent: Run) -> None:
        """A run for every case that failed; it is gone when the case was done after all."""
        asked = {case["name"]: case for case in self.facts["plan"].get("cases", ())}
        tags = {KIND: "case", FINISHED: FAILED, PARENT: parent.info.run_id}
        known = {asked[name]["key"] for name in self.failed}
        for old in self.client.search_runs([self.runs.experiment_id], tagged(tags)):
            if old.data.tags[KEY] not in known:
                self.client.delete_run(old.info.run_id)
        for name, reason in self.failed.items():
            case, moment = asked[name], moment_ms(self.facts["submitted"])
            told = {"kind": case["kind"], "status": FAILED, NOTE: reason, JOB: self.facts["key"]}
            run = self.runs.run(name, {**tags, KEY: case["key"], **told}, moment)
            self.runs.log(run, case_params(case))
            self.client.set_terminated(run.info.run_id, "FAILED", moment)

    def _commit(self) -> dict[str, str]:
        commit = self.facts.get("git_commit")
        return {"mlflow.source.git.commit": commit} if commit else {}

    def _write_job(self, run: Run) -> None:
        values = [
            *self._table_values(),
            *run_values(self.facts, moment_ms(self.facts["submitted"])),
        ]
        self.runs.log(run, settings_params(self.facts["settings"]), values)
        if (data := self.facts["plan"].get("data")) is not None:
            images = Images(self.facts["settings"]["data"], data)
            self.client.log_inputs(run.info.run_id, [images.as_input()])
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / f"{self.facts['name']}.yaml").write_text(self.facts["job_file"], "utf-8")
            self.job.copy_to(folder, ["job.json", *self._comparison()])
            self.client.log_artifacts(run.info.run_id, temporary)

    def _comparison(self) -> list[str]:
        return [key for key in self.job.list("comparison") if key != INDEX]

    def _table_values(self) -> list[Value]:
        """How right the latency table of each target is."""
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
        tags = self._case_tags("case", parent, result) | {JOB: self.facts["key"]}
        run = self.runs.run(result["case"], tags, started_ms(result))
        if RECORDED not in run.data.tags:
            self._write_case(run, result)
        has_model = self.job.exists(f"cases/{result['case']}/model")
        model = self._retrain(run, result) if has_model else None
        if RECORDED not in run.data.tags:
            self.runs.close(run, finished_ms(result), "yes")
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
        values += system_values(result["search_history"])
        self.runs.log(run, case_params(result), values)
        case, picture = f"cases/{result['case']}", f"comparison/{result['case']}"
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            there = [f"{case}/{name}" for name in CASE_FILES if self.job.exists(f"{case}/{name}")]
            self.job.copy_to(folder, there, below=case)
            table = self.tables.read_bytes(f"{result['table_key']}.json")
            (folder / "latency_table.json").write_bytes(table)
            for name, end in PICTURES.items():
                if self.job.exists(f"{picture}{end}"):
                    (folder / name).write_bytes(self.job.read_bytes(f"{picture}{end}"))
            self.client.log_artifacts(run.info.run_id, temporary)

    def _retrain(self, parent: Run, result: Result) -> ModelVersion | None:
        """The registered model of a search; those that it is compared with are not registered."""
        tags = self._case_tags("retrain", parent, result)
        run = self.runs.run(f"{result['case']} retrain", tags, started_ms(result, ["retrain"]))
        model = self.models.model(run, result)
        if RECORDED not in run.data.tags:
            history = result["retrain_history"]
            self.runs.log(run, {}, [*curves("retrain", history), *system_values(history)])
            self.runs.log(run, {}, final_values(MODEL_METRICS, result), model.model_id)
            self.runs.close(run, finished_ms(result), "yes")
        return self.models.registered(run, model, result) if result["kind"] == "search" else None

    def _links(
        self, ui: str, parent: Run, runs: list[str], models: Sequence[ModelVersion]
    ) -> RecordLinks:
        page = f"{ui}/#/experiments/{self.runs.experiment_id}/runs{TRAINING}"
        each = list(dict.fromkeys(runs))  # two names of one network are one run
        compared = f"runs={_quoted(each)}&experiments={_quoted([self.runs.experiment_id])}"
        words = (self.client, self.runs.experiment_id)
        return RecordLinks(
            report=f"{ui}/#/experiments/{words[1]}/runs/{parent.info.run_id}{TRAINING}",
            runs=f"{page}&viewStateShareKey={share_job(*words, self.facts['key'])}",
            cases=f"{page}&viewStateShareKey={share_cases(*words)}",
            compare=f"{ui}/#/compare-runs?{compared}&{TRAINING[1:]}",
            models=tuple(f"models:/{model.name}/{model.version}" for model in models),
        )


def _quoted(ids: list[str]) -> str:
    return quote(json.dumps(ids, separators=(",", ":")))
