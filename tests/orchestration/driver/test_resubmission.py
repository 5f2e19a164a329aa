"""A finished job that is submitted again: nothing is trained, and files are read once or twice."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from orchestration.driver import pipeline
from orchestration.reports.figures import gallery
from orchestration.tracking import job as tracking
from orchestration.tracking.links import RecordLinks
from tests.support.unfinished_job import BegunJob

READS = ("find_bytes", "read_bytes")
"""Methods through which every content of a storage is read."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Reads of each file, by its address."""
    counts, running = Counter[str](), [0]

    def counted(method: str) -> Any:
        read = getattr(Storage, method)

        def read_and_count(storage: Storage, key: str) -> Any:
            counts[storage.where(key)] += not running[0]  # one may call the other
            running[0] += 1
            try:
                return read(storage, key)
            finally:
                running[0] -= 1

        return read_and_count

    for method in READS:
        monkeypatch.setattr(Storage, method, counted(method))
    return counts


@pytest.fixture(autouse=True)
def neither_drawn_nor_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and MLflow take seconds, and read neither results nor `job.json` by themselves."""

    class Recorder:
        def __init__(self, *_: Any) -> None: ...

        def record(self, results: list[Any], ui: str) -> RecordLinks:
            runs = f"{len(results)} runs of {ui}"
            return RecordLinks(report="report", runs=runs, cases="", compare="", models=())

    monkeypatch.setattr(gallery, "write_pictures", lambda *_: None)
    monkeypatch.setattr(tracking, "connected", lambda *_: nullcontext())
    monkeypatch.setattr(tracking, "experiment_id", lambda *_: "0")
    monkeypatch.setattr(tracking, "Runs", lambda *_: None)
    monkeypatch.setattr(tracking, "_Recorder", Recorder)


def finished(root: Path) -> BegunJob:
    job = BegunJob(root)
    for case in job.cases.values():
        job.finish(case)
    job.root.write_json(f"tables/{job.first.table_key}.json", job.tables["mobile"].to_dict())
    job.end()
    return job


def test_each_file_of_a_finished_job_is_read_at_most_twice(
    tmp_path: Path, reads: Counter[str]
) -> None:
    job = finished(tmp_path)
    pipeline.run(job.job)
    reads.clear()
    said: list[str] = []
    done = pipeline.run(job.job, log=said.append)
    assert said[0] == f"all 3 networks of tiny are in {job.folder.uri}; nothing to train"
    assert [case.name for case in done.cases] == [*job.cases]
    assert len(done.links) == 3
    results = [job.folder.where(f"{case.folder}/result.json") for case in job.cases.values()]
    assert [reads[place] for place in results] == [1, 1, 1]
    assert reads[job.folder.where("job.json")] == 2


def test_what_a_killed_driver_has_laid_aside_is_found(tmp_path: Path, reads: Counter[str]) -> None:
    job = finished(tmp_path)
    first = job.first.folder
    for key in job.folder.list(first):
        place = f"renamed/{job.first.name}{key.removeprefix(first)}"
        job.folder.write_bytes(place, job.folder.read_bytes(key))
    job.folder.delete(first)
    job.folder.write_json("renamed.json", [job.first.name])
    said: list[str] = []
    pipeline.run(job.job, log=said.append)
    assert said[0] == f"all 3 networks of tiny are in {job.folder.uri}; nothing to train"
    assert not job.folder.exists("renamed.json")
