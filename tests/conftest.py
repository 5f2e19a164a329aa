"""Fixtures of all tests: a small job file, and no access to the user's MLflow or Ray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.support.repository import REPOSITORY as REPOSITORY

# Read when torch is loaded, here and in processes that tests start. Tests run beside each other and
# beside Ray: threads that wait for each other, and spin while they do, cost the most of all.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def _no_outside_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    """A small, valid job file with its storage in `tmp_path`."""
    path = tmp_path / "job.yaml"
    job = {
        "name": "small",
        "data": {"source": "digits"},
        "targets": {"mobile": {"stand_in": True}},
        "cases": [{"target": "mobile", "budgets_ms": ["80%"]}],
        "storage": str(tmp_path / "storage"),
    }
    path.write_text(yaml.safe_dump(job))
    return path
