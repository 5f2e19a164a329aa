"""Jobs that an earlier version finished are recognised as finished.

`tests/golden/finished_job` tells what the earlier version was.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cluster.storage import Storage
from orchestration.config.job import Job
from orchestration.config.loading import load_job
from orchestration.driver import pipeline
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import make_plan
from tests.conftest import REPOSITORY

FINISHED = REPOSITORY / "tests" / "golden" / "finished_job"
CASES = {
    "board-reference",
    "board-0.072ms",
    "board-0.096ms",
    "board-random-0.072ms",
    "board-random-0.096ms",
}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job, with a copy of its storage."""
    shutil.copytree(FINISHED, tmp_path / "job")
    monkeypatch.chdir(tmp_path / "job")  # the table of the job is a file beside it
    return load_job(str(tmp_path / "job" / "job.yaml"), [f"storage={tmp_path / 'job' / 'storage'}"])


def stored(job: Job, name: str) -> dict[str, str]:
    path = Path(job.storage) / "finished" / "cases" / name / "result.json"
    result: dict[str, str] = json.loads(path.read_text())
    return result


def test_every_case_has_the_key_of_its_result(job: Job) -> None:
    plan = make_plan(job)
    tables = pipeline._known_tables(plan, Storage(job.storage))
    keys = {case.name: case.key for case in cases_of(plan, tables)}
    assert keys == {name: stored(job, name)["key"] for name in CASES}


def test_the_warm_up_has_the_key_of_its_folder(job: Job) -> None:
    plan = make_plan(job)
    tables = pipeline._known_tables(plan, Storage(job.storage))
    (folder,) = (Path(job.storage) / "warmups").iterdir()
    keys = {case.warmup_key for case in cases_of(plan, tables) if case.kind == "search"}
    assert keys == {folder.name}


def test_the_job_submitted_again_trains_nothing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "no-such-cluster:1")
    for name in ("_record", "_compare"):
        monkeypatch.setattr(pipeline, name, lambda *_: ())
    before = {name: stored(job, name) for name in CASES}
    lines: list[str] = []
    result = pipeline.run(job, log=lines.append)
    assert any("all 5 networks" in line and "nothing to train" in line for line in lines)
    assert ({case.name for case in result.cases}, result.failed) == (CASES, {})
    assert {name: stored(job, name) for name in CASES} == before
