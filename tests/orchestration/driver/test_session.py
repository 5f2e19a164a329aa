"""One owner per job folder; a rejected job leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.lease import Lease
from cluster.storage import Storage
from tests.conftest import REPOSITORY
from tests.orchestration.end_to_end.test_main_job import SMALL

LONG = {**SMALL, "search.warmup_epochs": "8", "cluster.workers": "1"}


def driver(storage: Path, *overrides: str) -> subprocess.Popen[str]:
    """Run `python -m orchestration` on a reduced version of the main job, with its own Ray."""
    settings = [f"storage={storage}", *(f"{k}={v}" for k, v in LONG.items()), *overrides]
    words = [word for setting in settings for word in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "orchestration", "jobs/search_mobile.yaml", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "RAY_ADDRESS": "local"},
    )


def test_a_job_that_is_owned_is_refused_with_its_owner(tmp_path: Path) -> None:
    folder = Storage(str(tmp_path)).sub("search_mobile")
    with Lease(folder, renew_s=0.2):
        began = time.monotonic()
        second = driver(tmp_path)
        said, _ = second.communicate(timeout=60)
        assert time.monotonic() - began < 30
    assert second.returncode == 2
    assert f"held by process {os.getpid()} on host " in said
    assert not (tmp_path / "search_mobile" / "cases").exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_budget_that_no_network_meets_is_refused_after_measuring(tmp_path: Path) -> None:
    process = driver(tmp_path, "cases.0.budgets_ms=[99.0]")
    said, _ = process.communicate(timeout=800)
    assert process.returncode == 2
    assert "cases[0].budgets_ms[0] is 99 ms; networks of 'chain' take from " in said
    assert not (tmp_path / "search_mobile" / "cases").exists()
    assert list((tmp_path / "tables").iterdir())
