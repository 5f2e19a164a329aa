"""Views of an experiment's page, stored where "share view" of the UI would: links open them.

The UI shows no column of figures until one is chosen, and folds runs under their parents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient

from orchestration.record.runs import KIND

SHARED = "mlflow.sharedViewState."

COLUMNS = [
    *(f"metrics.`{name}`" for name in ("measured_ms", "table_ms", "top1", "params")),
    *(f"params.`{name}`" for name in ("target", "budget_ms")),
]
CASES = "proxyless"
"""The view of all cases of the experiment, the fastest first."""
CASES_STATE: dict[str, Any] = {
    "searchFilter": f"tags.`{KIND}` = 'case'",
    "orderByKey": "metrics.`measured_ms`",
    "orderByAsc": True,
    "selectedColumns": COLUMNS,
}


def share_cases(client: MlflowClient, experiment: str) -> str:
    """Store the view of all cases; the key by which a link names it."""
    return _share(client, experiment, CASES, CASES_STATE)


def share_job(client: MlflowClient, experiment: str, job_key: str, parent: str) -> str:
    """Store the view in which the run of a job is unfolded: its cases stand below it.

    Runs are only nested where no filter is set and the newest comes first, as is the UI's habit.
    """
    state = {"runsExpanded": {parent: True}, "selectedColumns": COLUMNS}
    return _share(client, experiment, f"{CASES}-{job_key}", state)


def _share(client: MlflowClient, experiment: str, key: str, state: Mapping[str, Any]) -> str:
    text = json.dumps(state)
    if client.get_experiment(experiment).tags.get(f"{SHARED}{key}") != text:
        client.set_experiment_tag(experiment, f"{SHARED}{key}", text)
    return key
