"""Models of retrainings: logged with their files, registered, the best of them marked."""

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
"""On every registered version, as tags."""
MEASURED = "measured_ms"
"""There too, where the target is measured."""
VERSIONS = "mlflow.modelVersions"
"""On a model: what the UI reads to lead from it to the registry."""
IMAGES = "proxyless.images"
BEST = "best"
BUDGET = "budget-"
"""Before the milliseconds of a budget: the alias of the best version for it."""


class _Candidate(Scored):
    """A registered version that may be the best, with its figures."""

    version: str


@dataclass(frozen=True)
class Models:
    """The models of one job. Every method may be called again after it was interrupted."""

    runs: Runs
    job: Storage
    prefix: str
    """Of registered names: `<prefix>-<target>`."""
    known: dict[str, LoggedModel] = field(default_factory=dict)
    """By the run that made them; those of new runs are not looked for."""
    versions: dict[str, list[ModelVersion]] = field(default_factory=dict)
    """Of the registered names that were met."""
    shown: set[str] = field(default_factory=set)
    """Runs that name their model as what they put out."""

    @property
    def client(self) -> PatientClient:
        """Where they are written."""
        return self.runs.client

    def read(self) -> None:
        """Read the models of all known runs, so that none is looked for by itself."""
        ours = {run.info.run_id for run in self.runs.known.values()}
        found = [model for model in self._search(None) if model.source_run_id in ours]
        for model in self._once(found):
            self.known.setdefault(model.source_run_id, model)

    def read_versions(self) -> None:
        """Read again what has the names that were met."""
        self.versions.update({name: self._versions(name) for name in self.versions})

    def model(self, run: Run, result: Result) -> LoggedModel:
        """The model of a retraining, with its files."""
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
        """The version that holds the model, made if missing, linked with it."""
        name = f"{self.prefix}-{result['target']}"
        if name not in self.versions:
            self.versions[name] = self._versions(name)
        tags = {KEY: result["key"], FINISHED: result["finished"]}
        known = [one for one in self.versions[name] if one.tags.items() >= tags.items()]
        version = known[0] if known else self._found_or_registered(name, run, model, result, tags)
        self.versions[name].append(version)
        self._link(model, {"name": name, "version": str(version.version)})
        return version

    def _link(self, model: LoggedModel, link: dict[str, str]) -> None:
        """Lead from a model to its version, and to none of that name that is there no more."""
        shown = json.loads(model.tags.get(VERSIONS, "[]"))
        wanted = [*(one for one in shown if one["name"] != link["name"]), link]
        if shown != wanted:
            model.tags[VERSIONS] = json.dumps(wanted)
            self.client.set_logged_model_tags(model.model_id, {VERSIONS: model.tags[VERSIONS]})

    def mark_best(self, name: str, results: Sequence[Result]) -> None:
        """Give the aliases to the versions of `name` that `best_result` picks: of all, and of those
        for each budget.

        Versions of the job that are of earlier settings do not compete, nor do those of other jobs
        on other images or another device.
        """
        candidates = self._candidates(name, results)
        if not candidates:
            return
        there = self.client.get_registered_model(name).aliases
        self._mark(name, BEST, candidates, there)
        for alias in dict.fromkeys(budget_alias(needed_budget_ms(one)) for one in candidates):
            same = [one for one in candidates if budget_alias(needed_budget_ms(one)) == alias]
            self._mark(name, alias, same, there)

    def _candidates(self, name: str, results: Sequence[Result]) -> list[_Candidate]:
        """Versions that may be the best, with what is to be known of them."""
        own = {(one["key"], one["finished"]) for one in results}
        alike = {(one["hardware"], _images(one)) for one in results}
        name_of_job = results[0]["job"] if results else None
        return [
            _candidate(found)
            for found in self.client.search_model_versions(f"name = '{name}'")
            if found.tags.keys() >= set(NUMBERS)  # others may register under this name, too
            and (
                (found.tags.get(KEY), found.tags.get(FINISHED)) in own
                if found.tags.get("job") == name_of_job
                else (found.tags.get("hardware"), found.tags.get(IMAGES)) in alike
            )
        ]

    def _mark(
        self,
        name: str,
        alias: str,
        candidates: Sequence[_Candidate],
        there: Mapping[str, str],
    ) -> None:
        """Give an alias to the best of the candidates, unless it is `there`."""
        best = best_result(candidates)
        if not keeps_budget(best):
            logger.warning(
                "no version of '%s' keeps its budget; '%s' is version %s, which misses it least",
                *(name, alias, best["version"]),
            )
        if str(there.get(alias)) != str(best["version"]):
            self.client.set_registered_model_alias(name, alias, str(best["version"]))

    def _versions(self, name: str) -> list[ModelVersion]:
        """All versions of a name, which is made if it is new."""
        found = self.client.search_model_versions(f"name = '{name}'")
        if not found:
            self.client.patience.until_done(lambda: self._make_name(name))
        return self._each_once(found)

    def _make_name(self, name: str) -> None:
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)

    def _each_once(self, versions: Iterable[ModelVersion]) -> list[ModelVersion]:
        """The first version of each result; requests that were answered too late made others."""
        first: dict[tuple[str, ...], ModelVersion] = {}
        ours = [one for one in versions if one.tags.keys() >= {KEY, FINISHED}]
        for one in sorted(ours, key=lambda version: int(version.version)):
            if first.setdefault((one.tags[KEY], one.tags[FINISHED], one.source), one) is not one:
                self.client.delete_model_version(one.name, str(one.version))
        return list(first.values())

    def _found_or_registered(
        self, name: str, run: Run, model: LoggedModel, result: Result, tags: dict[str, str]
    ) -> ModelVersion:
        looks: list[str] = []  # none at first: all versions are known

        def make() -> ModelVersion:
            found = self.client.search_model_versions(looks.pop()) if looks else []
            looks.append(f"name = '{name}' and {tagged(tags)}")
            return found[0] if found else self._register(name, run, model, result, tags)

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
        """The models of a run, or of all runs of the experiment."""
        wanted = None if run_id is None else f"source_run_id = '{run_id}'"
        places = [self.runs.experiment_id]
        return pages(
            lambda token: self.client.search_logged_models(places, wanted, page_token=token)
        )

    def _once(self, models: Iterable[LoggedModel]) -> list[LoggedModel]:
        """Of models of a run with the same name the one that is furthest; the others are deleted.

        A server that answers too late has made a model that was then made again.
        """
        best: dict[tuple[str, str], LoggedModel] = {}
        for model in sorted(models, key=_fullness, reverse=True):
            if best.setdefault((model.source_run_id, model.name), model) is not model:
                self.client.delete_logged_model(model.model_id)
        return list(best.values())

    def _found_or_new(self, run_id: str, result: Result) -> LoggedModel:
        # A new run has none; but then a request that failed may have made it.
        looks = [] if run_id in self.runs.new else [run_id]

        def make() -> LoggedModel:
            found = self._once(self._search(looks.pop())) if looks else []
            looks.append(run_id)
            return found[0] if found else self._new_model(run_id, result)

        return self.client.patience.until_done(make)

    def _show(self, run: Run, output: LoggedModelOutput) -> None:
        """Name a model as what its run put out, once: MLflow keeps the same name twice."""
        seen = [run]

        def show() -> None:
            now = seen.pop() if seen else self.client.get_run(run.info.run_id)
            if not (now.outputs and now.outputs.model_outputs):
                self.client.log_outputs(run.info.run_id, [output])

        self.client.patience.until_done(show)

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
    """What the images of a result are, as a digest."""
    return str(result.get("parts", {}).get("data", ""))


def budget_alias(budget_ms: float) -> str:
    """The alias of a budget: MLflow takes no dot, so 0.31 ms is `budget-0_31`."""
    return f"{BUDGET}{budget_ms:.4g}".replace(".", "_")


def _numbers(result: Result) -> dict[str, str]:
    """Tags of a version."""
    found = {name: value_of(result, name) for name in (*NUMBERS, MEASURED)}
    return {name: str(value) for name, value in found.items() if value is not None}
