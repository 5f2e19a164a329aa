"""Links to the recorded job in the MLflow UI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from orchestration.tracking.retries import PatientClient
from orchestration.tracking.runs import JOB, KIND, Runs

TRAINING = "?workflowType=machine_learning"
"""Query that selects the model-training view; the UI's default is its view for language models."""


@dataclass(frozen=True, kw_only=True)
class RecordLinks:
    """Addresses of the recorded job in the MLflow UI."""

    report: str
    """Page of the job's run, with its tables and files."""

    runs: str
    """Page of the experiment with the job and its cases, metrics in columns."""

    cases: str
    """Page of the experiment with the cases of all jobs."""

    compare: str
    """Page that compares all cases of the job and the reference."""

    models: tuple[str, ...]
    """Registered versions, such as `models:/digits-mobile/1`."""


def links_of(
    runs: Runs,
    job_key: str,
    ui: str,
    parent: Run,
    run_ids: Sequence[str],
    models: Sequence[ModelVersion],
) -> RecordLinks:
    """Links to a job; stores the shared views that they open.

    Args:
        runs: of the experiment.
        job_key: of the job.
        ui: address of the UI.
        parent: the run of the job.
        run_ids: of its cases.
        models: registered versions of its cases.
    """
    experiment = f"{ui}/#/experiments/{runs.experiment_id}"
    unique = list(dict.fromkeys(run_ids))  # two names of one network share a run
    # The page expects the runs as the first parameter of its query.
    compared = f"runs={_quoted(unique)}&experiments={_quoted([runs.experiment_id])}"
    view, cases = share_views(runs.client, runs.experiment_id, job_key)
    return RecordLinks(
        report=f"{experiment}/runs/{parent.info.run_id}{TRAINING}",
        runs=f"{experiment}/runs{TRAINING}&viewStateShareKey={view}",
        cases=f"{experiment}/runs{TRAINING}&viewStateShareKey={cases}",
        compare=f"{ui}/#/compare-runs?{compared}&{TRAINING[1:]}",
        models=tuple(f"models:/{model.name}/{model.version}" for model in models),
    )


def _quoted(ids: Sequence[str]) -> str:
    return quote(json.dumps(ids, separators=(",", ":")))


SHARED = "mlflow.sharedViewState."


COLUMNS = [
    *(f"metrics.`{name}`" for name in ("measured_ms", "table_ms", "top1", "params")),
    *(f"params.`{name}`" for name in ("target", "budget_ms")),
]


CASES = "proxyless"
"""Key of the view of all cases of the experiment."""


def share_views(client: PatientClient, experiment: str, job_key: str) -> tuple[str, str]:
    """Store two shared views, of a job with its cases and of all cases; returns their keys.

    Without a filter the UI collapses cases below their job, and a view cannot expand them.
    """
    views = {
        f"{CASES}-{job_key}": f"tags.`{JOB}` = '{job_key}'",
        CASES: f"tags.`{KIND}` = 'case'",
    }
    stored = client.get_experiment(experiment).tags
    for key, query in views.items():
        if stored.get(f"{SHARED}{key}") != _state(query):
            client.set_experiment_tag(experiment, f"{SHARED}{key}", _state(query))
    job_view, all_cases = views
    return job_view, all_cases


def _state(query: str) -> str:
    """JSON of a view of the runs that match a filter, the fastest first."""
    order = {"orderByKey": "metrics.`measured_ms`", "orderByAsc": True}
    return json.dumps({"searchFilter": query, **order, "selectedColumns": COLUMNS})
