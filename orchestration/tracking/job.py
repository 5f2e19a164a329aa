"""Write a job into MLflow: its run, its cases, their retrainings."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.entities import LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion

from cluster.storage import Storage
from orchestration.config.credentials import without_passwords
from orchestration.config.storage_layout import (
    ARCHITECTURE_FILE,
    JOB_FILE,
    MODEL,
    NETWORK_PICTURE,
    PROBABILITIES_FILE,
    RESULT_FILE,
    SEARCH_PICTURE,
    case_folder,
    comparison_file,
    table_name,
)
from orchestration.reports.table import read_results
from orchestration.state.result import Result
from orchestration.tracking.artifacts import upload
from orchestration.tracking.client import (
    CASE_S,
    PATIENCE_S,
    connected,
    experiment_id,
    is_server,
    ui_address,
)
from orchestration.tracking.job_run import JobRun
from orchestration.tracking.links import RecordLinks, links_of
from orchestration.tracking.metrics import (
    METRICS,
    MODEL_METRICS,
    case_params,
    curves,
    final_values,
    finished_ms,
    moment_ms,
    ranking_values,
    started_ms,
    system_values,
)
from orchestration.tracking.models import Models
from orchestration.tracking.parallel import in_order
from orchestration.tracking.runs import FINISHED, JOB, KEY, KIND, PARENT, RECORDED, Runs

CASE_FILES = (ARCHITECTURE_FILE, PROBABILITIES_FILE, RESULT_FILE)
PICTURES = {"architecture.png": NETWORK_PICTURE, "search.png": SEARCH_PICTURE}
"""Of a case: their names in MLflow, and how those in storage end."""
SERVER_THREADS = 8
"""Cases that are written to a server at once; those in a database of this host wait for each other
anyway."""


def record_job(
    job: Storage,
    tables: Storage,
    *,
    tracking_uri: str,
    experiment: str,
    patience_s: float = PATIENCE_S,
    is_waited_for: bool = False,
    results: Sequence[Result] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> RecordLinks:
    """Write what a job has in storage into MLflow: what is missing there, and nothing twice.

    Args:
        job: the job's folder, with `job.json` and `cases/*/result.json`.
        tables: the folder of the latency tables.
        tracking_uri: a server, or `sqlite:///...`; beside a SQLite file lie the artifacts.
        experiment: made if missing.
        patience_s: a failing request is sent again for a quarter of it.
        is_waited_for: stop after `patience_s` and two seconds for each case, whatever is missing.
        results: of the job, in the order of tables; None: they are read.
        facts: the content of `job.json`; None: it is read.

    Raises:
        RecordError: MLflow cannot be reached or written. The same call goes on from there.
        StorageError: the job's files cannot be read.
    """
    results = read_results(job) if results is None else results
    total_s = patience_s + CASE_S * len(results) if is_waited_for else float("inf")
    folder = job.parent.uri
    with connected(tracking_uri, patience_s, total_s) as client:
        runs = Runs(client, experiment_id(client, tracking_uri, experiment, folder))
        threads = SERVER_THREADS if is_server(tracking_uri) else 1
        facts = job.read_json(JOB_FILE) if facts is None else facts
        recorder = _Recorder(runs, job, tables, threads, facts)
        return recorder.record(results, ui_address(tracking_uri))


class _Case(NamedTuple):
    """A case whose runs are written."""

    run_id: str
    result: Result
    retrained: Run | None
    model: LoggedModel | None


class _Recorder:
    """Writes one job. Every method may be called again after it was interrupted."""

    def __init__(
        self, runs: Runs, job: Storage, tables: Storage, threads: int, facts: Mapping[str, Any]
    ) -> None:
        self.runs = runs
        self.client = runs.client
        self.job = job
        self.tables = tables
        self.threads = threads
        self.facts: dict[str, Any] = without_passwords(dict(facts))
        self.models = Models(runs, job, self.facts["registered_prefix"])

    def record(self, results: Sequence[Result], ui: str) -> RecordLinks:
        submitted = moment_ms(self.facts["submitted"])
        tags = {KIND: "job", KEY: self.facts["key"], JOB: self.facts["key"]}
        if commit := self.facts.get("git_commit"):
            tags["mlflow.source.git.commit"] = commit
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
            self.models.mark_best(name, results)
        links = links_of(self.runs, self.facts["key"], ui, parent, run_ids, models)
        whole = JobRun(self.runs, self.job, self.tables, self.facts, parent)
        whole.mark_outdated(run_ids)
        whole.write_failures()
        whole.write(results, links)
        return links

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

    def _case(self, parent: Run, result: Result) -> _Case:
        """Write the run of a case, and that of its retraining."""
        tags = self._case_tags("case", parent, result) | {JOB: self.facts["key"]}
        run = self.runs.run(result["case"], tags, started_ms(result))
        if RECORDED not in run.data.tags:
            self._write_case(run, result)
        is_trained = result["top1"] is not None  # else the model is of an earlier result
        has_model = is_trained and self.job.exists(f"{case_folder(result['case'])}/{MODEL}")
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
        case, picture = case_folder(result["case"]), comparison_file(result["case"])
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            there = [f"{case}/{name}" for name in CASE_FILES if self.job.exists(f"{case}/{name}")]
            self.job.copy_to(folder, there, below=case)
            table = table_name(result["table_key"])
            if self.tables.exists(table):  # it may have been removed since
                (folder / "latency_table.json").write_bytes(self.tables.read_bytes(table))
            for name, end in PICTURES.items():
                if self.job.exists(f"{picture}{end}"):
                    (folder / name).write_bytes(self.job.read_bytes(f"{picture}{end}"))
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


def _so_far(count: int, results: Sequence[Result]) -> str:
    return f"; {count} of {len(results)} cases are there"
