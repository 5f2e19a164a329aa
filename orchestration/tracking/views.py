"""Views of an experiment's page, stored where "share view" of the UI would: links open them.

The UI shows no column of figures until one is chosen, and folds runs under their parents.
"""

from __future__ import annotations

import json

from orchestration.tracking.retries import PatientClient
from orchestration.tracking.runs import JOB, KIND

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
