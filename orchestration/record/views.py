"""Views of an experiment's page, stored where "share view" of the UI would: links open them.

The UI shows no column of figures until one is chosen, and folds runs under their parents.
"""

from __future__ import annotations

import json

from mlflow import MlflowClient

from orchestration.record.runs import JOB, KIND

SHARED = "mlflow.sharedViewState."

COLUMNS = [
    *(f"metrics.`{name}`" for name in ("measured_ms", "table_ms", "top1", "params")),
    *(f"params.`{name}`" for name in ("target", "budget_ms")),
]
CASES = "proxyless"
"""The view of all cases of the experiment."""


def share_cases(client: MlflowClient, experiment: str) -> str:
    """Store the view of all cases of the experiment; the key by which a link names it."""
    return _share(client, experiment, CASES, f"tags.`{KIND}` = 'case'")


def share_job(client: MlflowClient, experiment: str, job_key: str) -> str:
    """Store the view of one job, its run and those of its cases in one list.

    Cases are folded below their job where no filter is set, and a view cannot unfold them.
    """
    return _share(client, experiment, f"{CASES}-{job_key}", f"tags.`{JOB}` = '{job_key}'")


def _share(client: MlflowClient, experiment: str, key: str, shown: str) -> str:
    """Store a view of what a filter shows, the fastest first."""
    order = {"orderByKey": "metrics.`measured_ms`", "orderByAsc": True}
    text = json.dumps({"searchFilter": shown, **order, "selectedColumns": COLUMNS})
    if client.get_experiment(experiment).tags.get(f"{SHARED}{key}") != text:
        client.set_experiment_tag(experiment, f"{SHARED}{key}", text)
    return key
