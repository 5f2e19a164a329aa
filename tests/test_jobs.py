"""Every file in jobs/ is a right job and a program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestration.plan import make_plan
from orchestration.spec import load_job
from tests.conftest import REPOSITORY

JOBS = sorted((REPOSITORY / "jobs").glob("*.yaml"))


def test_there_are_jobs() -> None:
    assert JOBS


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_job_file_is_a_program_named_like_its_job(path: Path) -> None:
    assert path.read_text().splitlines()[0] == "#!/usr/bin/env -S python -m orchestration"
    assert os.access(path, os.X_OK)
    assert load_job(path).name == path.stem


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_job_file_can_be_planned(path: Path) -> None:
    plan = make_plan(load_job(path))
    assert plan.table_keys.keys() == {case.target for case in plan.job.cases}
