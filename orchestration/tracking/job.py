"""Record a job in MLflow: its run, the runs of its cases and of their retrainings."""

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
    RETRY_S,
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
"""Figures of a case: names in MLflow, and suffixes of their names in storage."""
SERVER_THREADS = 8
"""Cases written to a server concurrently. A local database serializes writes anyway."""


def record_job(
    job: Storage,
    tables: Storage,
    *,
    tracking_uri: str,
    experiment: str,
    patience_s: float = RETRY_S,
    is_waited_for: bool = False,
    results: Sequence[Result] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> RecordLinks:
    """Record a job from storage in MLflow. Only what is missing there is written.

    Args:
        job: the job's folder, with `job.json` and `cases/*/result.json`.
        tables: the folder of the latency tables.
        tracking_uri: of a server, or `sqlite:///...`; artifacts are stored next to a SQLite file.
        experiment: name of the experiment; created if missing.
        patience_s: a failing request is retried for a quarter of it.
        is_waited_for: stop after `patience_s` plus two seconds per case, even if incomplete.
        results: of the job, in the order of tables; None to read them here.
        facts: content of `job.json`; None to read it here.

    Raises:
        RecordError: MLflow cannot be reached or written. The same call continues from there.
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
    """A case whose runs have been written."""

    run_id: str
    result: Result
    retrained: Run | None
    model: LoggedModel | None


class _Recorder:
    """Records one job. Every method can be repeated after an interruption."""

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
            self._delete_duplicates(parent)
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
        """Write the runs of cases and register models; returns the run ids and the model versions.

        Runs are written concurrently. Versions are registered one by one, since their numbers
        follow the order of the results.
        """
        groups: dict[tuple[str, str], list[Result]] = {}
        for result in results:  # two names of one network share a run, which one thread writes
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

    def _delete_duplicates(self, parent: Run) -> None:
        """Delete duplicates: a retried request may have been executed twice by the server."""
        self.runs.read_again(parent, "case", "retrain")
        self.models.read()
        self.models.read_versions()

    def _case(self, parent: Run, result: Result) -> _Case:
        """Write the runs of a case and of its retraining."""
        tags = self._case_tags("case", parent, result) | {JOB: self.facts["key"]}
        run = self.runs.run(result["case"], tags, started_ms(result))
        if RECORDED not in run.data.tags:
            self._write_case(run, result)
        is_trained = result["top1"] is not None  # otherwise the model belongs to an earlier result
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
            "status": "done",  # unfinished cases have no result
        }

    def _write_case(self, run: Run, result: Result) -> None:
        values = final_values(METRICS, result) + ranking_values(result)
        values += curves("search", result["search_history"])
        values += system_values(result["search_history"])
        self.runs.log(run, case_params(result), values)
        case, figure = case_folder(result["case"]), comparison_file(result["case"])
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            stored = [f"{case}/{name}" for name in CASE_FILES if self.job.exists(f"{case}/{name}")]
            self.job.copy_to(folder, stored, below=case)
            table = table_name(result["table_key"])
            if self.tables.exists(table):  # it may have been deleted since
                (folder / "latency_table.json").write_bytes(self.tables.read_bytes(table))
            for name, suffix in PICTURES.items():
                if self.job.exists(f"{figure}{suffix}"):
                    (folder / name).write_bytes(self.job.read_bytes(f"{figure}{suffix}"))
            upload(self.client, folder, run.info.artifact_uri)

    def _retrain(self, parent: Run, result: Result) -> tuple[Run, LoggedModel]:
        """Write the run of a retraining, and upload its model without registering it."""
        tags = self._case_tags("retrain", parent, result)
        run = self.runs.run(f"{result['case']} retrain", tags, started_ms(result, ["retrain"]))
        model = self.models.model(run, result)
        if RECORDED not in run.data.tags:
            history = result["retrain_history"]
            plain = [*curves("retrain", history), *system_values(history)]
            values = [(value, None) for value in plain]
            values += [(value, model.model_id) for value in final_values(MODEL_METRICS, result)]
            self.runs.log(run, {}, values)
            self.runs.close(run, finished_ms(result), "yes")
        return run, model


def _so_far(count: int, results: Sequence[Result]) -> str:
    return f"; {count} of {len(results)} cases are recorded"
