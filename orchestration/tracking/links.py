"""Where a person finds in the UI what was recorded."""

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


def links_of(
    runs: Runs,
    job_key: str,
    ui: str,
    parent: Run,
    run_ids: Sequence[str],
    models: Sequence[ModelVersion],
) -> RecordLinks:
    """The pages of a job; the views that they open are stored.

    Args:
        runs: of the experiment.
        job_key: of the job.
        ui: address of the UI.
        parent: the run of the job.
        run_ids: of its cases.
        models: their registered versions.
    """
    experiment = f"{ui}/#/experiments/{runs.experiment_id}"
    each = list(dict.fromkeys(run_ids))  # two names of one network are one run
    # The page takes its runs from the beginning of its words.
    compared = f"runs={_quoted(each)}&experiments={_quoted([runs.experiment_id])}"
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
"""The view of all cases of the experiment."""


def share_views(client: PatientClient, experiment: str, job_key: str) -> tuple[str, str]:
    """Store a view of one job, its run and those of its cases in one list, and one of all cases of
    the experiment; the keys by which links name them.

    Cases are folded below their job where no filter is set, and a view cannot unfold them.
    """
    views = {
        f"{CASES}-{job_key}": f"tags.`{JOB}` = '{job_key}'",
        CASES: f"tags.`{KIND}` = 'case'",
    }
    stored = client.get_experiment(experiment).tags
    for key, shown in views.items():
        if stored.get(f"{SHARED}{key}") != _state(shown):
            client.set_experiment_tag(experiment, f"{SHARED}{key}", _state(shown))
    one, all_of_them = views
    return one, all_of_them


def _state(shown: str) -> str:
    """Of a view of what a filter shows, the fastest first."""
    order = {"orderByKey": "metrics.`measured_ms`", "orderByAsc": True}
    return json.dumps({"searchFilter": shown, **order, "selectedColumns": COLUMNS})
