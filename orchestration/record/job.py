"""Write a job into MLflow: its run, its cases, their retrainings."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from mlflow.entities import LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion

from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.compare import read_results
from orchestration.credentials import without_passwords
from orchestration.record.client import (
    CASE_S,
    PATIENCE_S,
    connected,
    experiment_id,
    is_server,
    ui_address,
)
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
    settings_params,
    started_ms,
    system_values,
    table_values,
)
from orchestration.record.models import Models
from orchestration.record.parallel import in_order
from orchestration.record.runs import FINISHED, KEY, KIND, PARENT, RECORDED, Runs
from orchestration.record.upload import upload
from orchestration.result_values import Result

CASE_FILES = ("architecture.json", "result.json")
SERVER_THREADS = 8
"""Cases that are written to a server at once; those in a database of this host wait for each other
anyway."""
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


def record_job(
    job: Storage,
    tables: Storage,
    *,
    tracking_uri: str,
    experiment: str,
    patience_s: float = PATIENCE_S,
    is_waited_for: bool = False,
) -> RecordLinks:
    """Write what a job has in storage into MLflow: what is missing there, and nothing twice.

    Args:
        job: the job's folder, with `job.json` and `cases/*/result.json`.
        tables: the folder of the latency tables.
        tracking_uri: a server, or `sqlite:///...`; beside a SQLite file lie the artifacts.
        experiment: made if missing.
        patience_s: a failing request is sent again for a quarter of it.
        is_waited_for: stop after `patience_s` and two seconds for each case, whatever is missing.

    Raises:
        RecordError: MLflow cannot be reached or written. The same call goes on from there.
        StorageError: the job's files cannot be read.
    """
    results = read_results(job)
    total_s = patience_s + CASE_S * len(results) if is_waited_for else float("inf")
    folder = job.path().parent
    with connected(tracking_uri, patience_s, total_s) as client:
        runs = Runs(client, experiment_id(client, tracking_uri, experiment, folder))
        recorder = _Recorder(runs, job, tables, SERVER_THREADS if is_server(tracking_uri) else 1)
        return recorder.record(results, ui_address(tracking_uri))


class _Case(NamedTuple):
    """A case whose runs are written."""

    run_id: str
    result: Result
    retrained: Run | None
    model: LoggedModel | None


class _Recorder:
    """Writes one job. Every method may be called again after it was interrupted."""

    def __init__(self, runs: Runs, job: Storage, tables: Storage, threads: int) -> None:
        self.runs = runs
        self.client = runs.client
        self.job = job
        self.tables = tables
        self.threads = threads
        self.facts: dict[str, Any] = without_passwords(job.read_json("job.json"))
        self.models = Models(runs, job, self.facts["registered_prefix"])

    def record(self, results: Sequence[Result], ui: str) -> RecordLinks:
        self._share_view()
        submitted = moment_ms(self.facts["submitted"])
        tags = {KIND: "job", KEY: self.facts["key"], **self._commit()}
        parent = self.runs.run(
            self.facts["name"], tags, min([submitted, *map(started_ms, results)])
        )
        if parent.info.run_id not in self.runs.new:
            self.runs.read_children(parent, "case", "retrain")
            self.models.read()
        run_ids, models = self._cases(parent, results)
        if self.client.patience.has_repeated:
            self._drop_doubles(parent)
        for name in {model.name for model in models}:
            self.models.mark_best(name)
        # A job that was stopped and went on has more cases than when it was recorded last.
        state = " ".join(sorted(result["key"] for result in results))
        if parent.data.tags.get(RECORDED) != state:
            self._write_job(parent)
            self.runs.close(parent, max([submitted, *map(finished_ms, results)]), state)
        return self._links(ui, run_ids, models)

    def _cases(
        self, parent: Run, results: Sequence[Result]
    ) -> tuple[list[str], list[ModelVersion]]:
        """Ids of the runs of cases, and the registered models.

        Runs are written at once, as many as there are threads; versions are registered one by one,
        since their numbers follow the order of the results.
        """
        groups: dict[tuple[str, str], list[Result]] = {}
        for result in results:  # two names of one network are one run, which one thread writes
            groups.setdefault((result["key"], result["finished"]), []).append(result)
        patience, run_ids, versions = self.client.patience, [], []
        patience.so_far = _so_far(0, results)
        work = partial(self._group, parent)
        with closing(in_order(work, list(groups.values()), self.threads, patience)) as written:
            for case in chain.from_iterable(written):
                run_ids.append(case.run_id)
                if case.model is not None and case.result["kind"] == "search":
                    version = self.models.registered(case.retrained, case.model, case.result)
                    versions.append(version)
                patience.so_far = _so_far(len(run_ids), results)
        return run_ids, versions

    def _group(self, parent: Run, results: Sequence[Result]) -> list[_Case]:
        return [self._case(parent, result) for result in results]

    def _drop_doubles(self, parent: Run) -> None:
        """A request that was sent again may have been answered twice, though not to us."""
        self.runs.read_again(parent, "case", "retrain")
        self.models.read()
        self.models.read_versions()

    def _share_view(self) -> None:
        tag, state = f"mlflow.sharedViewState.{VIEW}", json.dumps(VIEW_STATE)
        if self.client.get_experiment(self.runs.experiment_id).tags.get(tag) != state:
            self.client.set_experiment_tag(self.runs.experiment_id, tag, state)

    def _commit(self) -> dict[str, str]:
        commit = self.facts.get("git_commit")
        return {"mlflow.source.git.commit": commit} if commit else {}

    def _write_job(self, run: Run) -> None:
        self.runs.log(run, settings_params(self.facts["settings"]), self._table_values())
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / f"{self.facts['name']}.yaml").write_text(self.facts["job_file"], "utf-8")
            self.job.copy_to(folder, ["job.json", *self.job.list("comparison")])
            upload(self.client, folder, run.info.artifact_uri)

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

    def _case(self, parent: Run, result: Result) -> _Case:
        """Write the run of a case, and that of its retraining."""
        tags = self._case_tags("case", parent, result)
        run = self.runs.run(result["case"], tags, started_ms(result))
        if RECORDED not in run.data.tags:
            self._write_case(run, result)
        has_model = self.job.exists(f"cases/{result['case']}/model")
        retrained, model = self._retrain(run, result) if has_model else (None, None)
        if RECORDED not in run.data.tags:
            self.runs.close(run, finished_ms(result), "yes")
        return _Case(run.info.run_id, result, retrained, model)

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
        case, picture = f"cases/{result['case']}", f"comparison/{result['case']}.png"
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            self.job.copy_to(folder, [f"{case}/{name}" for name in CASE_FILES], below=case)
            table = self.tables.read_bytes(f"{result['table_key']}.json")
            (folder / "latency_table.json").write_bytes(table)
            if self.job.exists(picture):
                (folder / "architecture.png").write_bytes(self.job.read_bytes(picture))
            upload(self.client, folder, run.info.artifact_uri)

    def _retrain(self, parent: Run, result: Result) -> tuple[Run, LoggedModel]:
        """Its run, and its model with its files; that is not registered here."""
        tags = self._case_tags("retrain", parent, result)
        run = self.runs.run(f"{result['case']} retrain", tags, started_ms(result, ["retrain"]))
        model = self.models.model(run, result)
        if RECORDED not in run.data.tags:
            history = result["retrain_history"]
            found = [(one, None) for one in [*curves("retrain", history), *system_values(history)]]
            found += [(one, model.model_id) for one in final_values(MODEL_METRICS, result)]
            self.runs.log(run, {}, found)
            self.runs.close(run, finished_ms(result), "yes")
        return run, model

    def _links(self, ui: str, runs: list[str], models: Sequence[ModelVersion]) -> RecordLinks:
        page = f"{ui}/#/experiments/{self.runs.experiment_id}/runs?workflowType=machine_learning"
        each = list(dict.fromkeys(runs))  # two names of one network are one run
        compared = f"runs={_quoted(each)}&experiments={_quoted([self.runs.experiment_id])}"
        return RecordLinks(
            runs=page,
            cases=f"{page}&viewStateShareKey={VIEW}",
            compare=f"{ui}/#/compare-runs?{compared}",
            models=tuple(f"models:/{model.name}/{model.version}" for model in models),
        )


def _so_far(count: int, results: Sequence[Result]) -> str:
    return f"; {count} of {len(results)} cases are there"


def _quoted(ids: list[str]) -> str:
    return quote(json.dumps(ids, separators=(",", ":")))
