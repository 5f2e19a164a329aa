"""Models of retrainings: logging with files, registration, aliases of the best versions."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion

from cluster.storage import Storage
from orchestration.config.storage_layout import MODEL, case_folder
from orchestration.reports.results import needed_budget_ms
from orchestration.reports.table import best_result, keeps_budget
from orchestration.state.result import Result, Scored, value_of
from orchestration.tracking.artifacts import upload
from orchestration.tracking.metrics import case_params
from orchestration.tracking.mlmodel import write_mlmodel
from orchestration.tracking.retries import PatientClient
from orchestration.tracking.runs import FINISHED, KEY, Runs, pages, tagged

logger = logging.getLogger(__name__)

NUMBERS = ("budget_ms", "table_ms", "top1")
"""Tags with numbers on every registered version."""
MEASURED = "measured_ms"
"""Tag with the measured latency, on versions for targets that are measured."""
VERSIONS = "mlflow.modelVersions"
"""Tag of a logged model from which the UI links to the registry."""
IMAGES = "proxyless.images"
BEST = "best"
BUDGET = "budget-"
"""Prefix of the alias of the best version for a budget; the milliseconds follow."""


class _Candidate(Scored):
    """A registered version that may be the best, with its figures."""

    version: str


@dataclass(frozen=True)
class Models:
    """The models of one job. Every method can be repeated after an interruption."""

    runs: Runs
    job: Storage
    prefix: str
    """Prefix of registered names, which are `<prefix>-<target>`."""
    known: dict[str, LoggedModel] = field(default_factory=dict)
    """Logged models by the id of their run; models of new runs are not looked up."""
    versions: dict[str, list[ModelVersion]] = field(default_factory=dict)
    """Versions of the registered names used so far, by name."""
    shown: set[str] = field(default_factory=set)
    """Ids of runs whose model is linked as their output."""

    @property
    def client(self) -> PatientClient:
        """Client that the models are written with."""
        return self.runs.client

    def read(self) -> None:
        """Read the models of all known runs at once, to save a request for each."""
        ours = {run.info.run_id for run in self.runs.known.values()}
        logged = [model for model in self._search(None) if model.source_run_id in ours]
        for model in self._once(logged):
            self.known.setdefault(model.source_run_id, model)

    def read_versions(self) -> None:
        """Read the versions of the names used so far again."""
        self.versions.update({name: self._versions(name) for name in self.versions})

    def model(self, run: Run, result: Result) -> LoggedModel:
        """The logged model of a retraining with its files; created if missing."""
        run_id = run.info.run_id
        model = self.known.get(run_id) or self._found_or_new(run_id, result)
        if model.status != LoggedModelStatus.READY:
            self._upload(model, run_id, f"{case_folder(result['case'])}/{MODEL}")
            model = self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self.known[run_id] = model
        if run_id not in self.shown:
            self._show(run, LoggedModelOutput(model.model_id, step=len(result["retrain_history"])))
            self.shown.add(run_id)
        return model

    def registered(self, run: Run, model: LoggedModel, result: Result) -> ModelVersion:
        """The registered version of a model, created if missing and linked from the model."""
        name = f"{self.prefix}-{result['target']}"
        if name not in self.versions:
            self.versions[name] = self._versions(name)
        tags = {KEY: result["key"], FINISHED: result["finished"]}
        known = [
            known_version
            for known_version in self.versions[name]
            if known_version.tags.items() >= tags.items()
        ]
        version = known[0] if known else self._found_or_registered(name, run, model, result, tags)
        self.versions[name].append(version)
        self._link(model, {"name": name, "version": str(version.version)})
        return version

    def _link(self, model: LoggedModel, link: dict[str, str]) -> None:
        """Link a model to its version, in place of links to former versions of the same name."""
        shown = json.loads(model.tags.get(VERSIONS, "[]"))
        wanted = [*(item for item in shown if item["name"] != link["name"]), link]
        if shown != wanted:
            model.tags[VERSIONS] = json.dumps(wanted)
            self.client.set_logged_model_tags(model.model_id, {VERSIONS: model.tags[VERSIONS]})

    def mark_best(self, name: str, results: Sequence[Result]) -> None:
        """Set the aliases of the best version of `name`, overall and for each budget.

        `best_result` chooses. Versions of earlier settings of the job do not compete, nor do those
        of other jobs with other images or another device.
        """
        candidates = self._candidates(name, results)
        if not candidates:
            return
        aliases = self.client.get_registered_model(name).aliases
        self._mark(name, BEST, candidates, aliases)
        for alias in dict.fromkeys(
            budget_alias(needed_budget_ms(candidate)) for candidate in candidates
        ):
            same = [
                candidate
                for candidate in candidates
                if budget_alias(needed_budget_ms(candidate)) == alias
            ]
            self._mark(name, alias, same, aliases)

    def _candidates(self, name: str, results: Sequence[Result]) -> list[_Candidate]:
        """Versions that compete for the aliases, as results for `best_result`."""
        own = {(result["key"], result["finished"]) for result in results}
        alike = {(result["hardware"], _images(result)) for result in results}
        name_of_job = results[0]["job"] if results else None
        return [
            _candidate(version)
            for version in self.client.search_model_versions(f"name = '{name}'")
            if version.tags.keys() >= set(NUMBERS)  # other projects may register this name, too
            and (
                (version.tags.get(KEY), version.tags.get(FINISHED)) in own
                if version.tags.get("job") == name_of_job
                else (version.tags.get("hardware"), version.tags.get(IMAGES)) in alike
            )
        ]

    def _mark(
        self,
        name: str,
        alias: str,
        candidates: Sequence[_Candidate],
        aliases: Mapping[str, str],
    ) -> None:
        """Set an alias to the best of the candidates, unless `aliases` has it already."""
        best = best_result(candidates)
        if not keeps_budget(best):
            logger.warning(
                "no version of '%s' is within its budget; '%s' is version %s, the closest one",
                *(name, alias, best["version"]),
            )
        if str(aliases.get(alias)) != str(best["version"]):
            self.client.set_registered_model_alias(name, alias, str(best["version"]))

    def _versions(self, name: str) -> list[ModelVersion]:
        """All versions of a registered name, which is created if missing."""
        versions = self.client.search_model_versions(f"name = '{name}'")
        if not versions:
            self.client.patience.until_done(lambda: self._make_name(name))
        return self._each_once(versions)

    def _make_name(self, name: str) -> None:
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)

    def _each_once(self, versions: Iterable[ModelVersion]) -> list[ModelVersion]:
        """The first version of each result. Deletes others, which retried requests have created."""
        first: dict[tuple[str, ...], ModelVersion] = {}
        ours = [version for version in versions if version.tags.keys() >= {KEY, FINISHED}]
        for version in sorted(ours, key=lambda candidate: int(candidate.version)):
            if (
                first.setdefault(
                    (version.tags[KEY], version.tags[FINISHED], version.source), version
                )
                is not version
            ):
                self.client.delete_model_version(version.name, str(version.version))
        return list(first.values())

    def _found_or_registered(
        self, name: str, run: Run, model: LoggedModel, result: Result, tags: dict[str, str]
    ) -> ModelVersion:
        queries: list[str] = []  # none at first: all versions are known

        def make() -> ModelVersion:
            versions = self.client.search_model_versions(queries.pop()) if queries else []
            queries.append(f"name = '{name}' and {tagged(tags)}")
            return versions[0] if versions else self._register(name, run, model, result, tags)

        return self.client.patience.until_done(make)

    def _register(
        self, name: str, run: Run, model: LoggedModel, result: Result, tags: dict[str, str]
    ) -> ModelVersion:
        facts = {"job": result["job"], "hardware": result["hardware"], IMAGES: _images(result)}
        return self.client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=run.info.run_id,
            model_id=model.model_id,
            tags=tags | facts | _numbers(result),
            description=f"{result['case']} of job {result['job']}",
        )

    def _search(self, run_id: str | None) -> list[LoggedModel]:
        """Logged models of a run, or of all runs of the experiment."""
        wanted = None if run_id is None else f"source_run_id = '{run_id}'"
        places = [self.runs.experiment_id]
        return pages(
            lambda token: self.client.search_logged_models(places, wanted, page_token=token)
        )

    def _once(self, models: Iterable[LoggedModel]) -> list[LoggedModel]:
        """The most complete of a run's models of equal name; deletes the others.

        If a server responds after the timeout, the retried request creates the model twice.
        """
        best: dict[tuple[str, str], LoggedModel] = {}
        for model in sorted(models, key=_fullness, reverse=True):
            if best.setdefault((model.source_run_id, model.name), model) is not model:
                self.client.delete_logged_model(model.model_id)
        return list(best.values())

    def _found_or_new(self, run_id: str, result: Result) -> LoggedModel:
        # A new run has no model, unless a request that failed has created it.
        pending = [] if run_id in self.runs.new else [run_id]

        def make() -> LoggedModel:
            models = self._once(self._search(pending.pop())) if pending else []
            pending.append(run_id)
            return models[0] if models else self._new_model(run_id, result)

        return self.client.patience.until_done(make)

    def _show(self, run: Run, output: LoggedModelOutput) -> None:
        """Link a model as the output of its run, once: MLflow stores duplicates."""
        first_try = [run]

        def link() -> None:
            current = first_try.pop() if first_try else self.client.get_run(run.info.run_id)
            if not (current.outputs and current.outputs.model_outputs):
                self.client.log_outputs(run.info.run_id, [output])

        self.client.patience.until_done(link)

    def _new_model(self, run_id: str, result: Result) -> LoggedModel:
        return self.client.create_logged_model(
            self.runs.experiment_id,
            name=result["case"].replace(".", "_"),  # MLflow allows no dots
            source_run_id=run_id,
            params=case_params(result),
            model_type="image classifier",
        )

    def _upload(self, model: LoggedModel, run_id: str, key: str) -> None:
        identity = {"model_id": model.model_id, "run_id": run_id}
        with tempfile.TemporaryDirectory() as files, tempfile.TemporaryDirectory() as folder:
            self.job.copy_to(Path(files), self.job.list(key), below=key)
            write_mlmodel(Path(files), Path(folder), identity, model.artifact_location)
            upload(self.client, Path(folder), model.artifact_location)


def _candidate(version: ModelVersion) -> _Candidate:
    tags = version.tags
    return {
        "version": version.version,
        "budget_ms": float(tags["budget_ms"]),
        "table_ms": float(tags["table_ms"]),
        "top1": float(tags["top1"]),
        "measured_ms": float(tags[MEASURED]) if MEASURED in tags else None,
    }


def _fullness(model: LoggedModel) -> tuple[bool, bool, str]:
    return model.status == LoggedModelStatus.READY, VERSIONS in model.tags, model.model_id


def _images(result: Result) -> str:
    """Digest of the images of a result."""
    return str(result.get("parts", {}).get("data", ""))


def budget_alias(budget_ms: float) -> str:
    """The alias of a budget: `budget-0_31` for 0.31 ms, since MLflow allows no dots."""
    return f"{BUDGET}{budget_ms:.4g}".replace(".", "_")


def _numbers(result: Result) -> dict[str, str]:
    """Tags of a version."""
    values = {name: value_of(result, name) for name in (*NUMBERS, MEASURED)}
    return {name: str(value) for name, value in values.items() if value is not None}
