"""Fixtures and rules for all tests: the tiers, and an environment apart from that of the user."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml

from tests.support.repository import REPOSITORY as REPOSITORY

# Read when torch is loaded, here and in processes that tests start. Tests run beside each other and
# beside Ray: threads that wait for each other, and spin while they do, cost the most of all.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Garbage collection after every 700 new objects takes a tenth of the processor time of the tests.
gc.set_threshold(50_000, 20, 50)

UNIT = "not ray and not slow"
"""Marker expression of the unit tier, which plain `pytest` runs."""
ALL = "slow or not slow"
"""Marker expression of all tests, which `pytest -m ""` runs."""

COMPILERS = {"executorch.exir", "onnxscript"}
"""Modules that lowering imports. They take seconds, and that of ExecuTorch a gigabyte of memory."""

COMPILERS_BEFORE = pytest.StashKey[set[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Select the unit tier unless `-m` is given or a test is named (`file.py::test`).

    `-m ""` selects all tests.
    """
    if config.option.markexpr or any("::" in word for word in config.args):
        return
    # Not empty for all tests either: processes of pytest-xdist see the expression alone.
    config.option.markexpr = ALL if "-m" in config.invocation_params.args else UNIT


def pytest_collection_finish() -> None:
    """Leave modules and collected tests out of garbage collection."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[COMPILERS_BEFORE] = COMPILERS & sys.modules.keys()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test of the unit tier that lowers a program or leaves a Ray behind."""
    yield
    if any(item.get_closest_marker(name) for name in ("ray", "slow")):
        return
    if COMPILERS & sys.modules.keys() != item.stash[COMPILERS_BEFORE]:
        pytest.fail("the test lowers a program; mark it slow")
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        pytest.fail("the test started a Ray; mark it ray")


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
