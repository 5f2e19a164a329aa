"""`proxyless clean` deletes only what is no longer needed: a finished job stays finished."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import lease
from cluster.lease import Lease
from cluster.storage import Storage, StorageError
from orchestration.cli.app import main
from orchestration.cli.clean import clean, size_text
from orchestration.driver import pipeline
from orchestration.planning.case import checkpoints_place
from orchestration.state.job_folder import job_folder
from orchestration.state.results_on_disk import is_done
from tests.support.unfinished_job import BegunJob, checkpoint


def finished(root: Path, **more: Any) -> BegunJob:
    """A finished job, with temporary files and the state of Ray."""
    job = BegunJob(root, **more)
    for case in job.cases.values():
        job.finish(case)
    job.root.write_json(f"tables/{job.first.table_key}.json", job.tables["mobile"].to_dict())
    leave(job)
    job.end()
    return job


def leave(job: BegunJob) -> None:
    """Write the files that Ray and a killed writer leave."""
    job.folder.write_bytes("tune/one/result.json", b"x" * 1000)
    job.folder.write_bytes("tune/.validate_storage_marker", b"")
    job.folder.write_bytes("train/one/.validate_storage_marker", b"")
    (job.folder.path("cases") / ".result.json.0123.tmp").write_bytes(b"half")


def warm(job: BegunJob) -> str:
    """Write a finished warm-up for the job; its key in storage."""
    path = f"warmups/{job.first.warmup_key}"
    checkpoint(job.root.sub(path), 2, phase="warmup")
    job.root.write_json(f"{path}/end.json", {"checkpoint": "00002-00000000"})
    return path


def cleaned(job: BegunJob, **options: bool) -> str:
    logged: list[str] = []
    clean(job_folder(job.folder.uri), logged.append, is_sure=True, **options)
    return "\n".join(logged)


def stated(job: BegunJob, **options: bool) -> str:
    logged: list[str] = []
    clean(job_folder(job.folder.uri), logged.append, **options)
    return "\n".join(logged)


def tops(job: BegunJob) -> set[str]:
    return {path.name for path in job.folder.path().iterdir() if path.name != ".lease.json.lock"}


def test_results_tables_and_comparison_stay(tmp_path: Path) -> None:
    job = finished(tmp_path)
    job.folder.write_text("comparison/comparison.csv", "job")
    kept = ("cases", "comparison", "job.json")
    before = {key: job.folder.read_bytes(key) for top in kept for key in job.folder.list(top)}
    before["job.json"] = job.folder.read_bytes("job.json")
    cleaned(job)
    assert tops(job) == {*kept}
    assert {key: job.folder.read_bytes(key) for key in job.folder.list()} == before
    assert job.root.list("tables")
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_a_finished_job_that_was_cleaned_has_nothing_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished(tmp_path)
    warm(job)
    cleaned(job, warmups=True)
    monkeypatch.setattr(pipeline, "_record", lambda *_: ())
    logged: list[str] = []
    done = pipeline.run(job.job, log=logged.append)
    assert logged[0] == f"all 3 networks of tiny are in {job.folder.uri}; nothing to train"
    assert {case.name for case in done.cases} == {*job.cases}
    assert not done.failed


def test_checkpoints_of_what_is_not_finished_stay_and_are_named(tmp_path: Path) -> None:
    job = BegunJob(tmp_path)
    job.begin()
    job.finish(job.first)
    job.searching(job.first, 5)
    job.searching(job.second, 4)
    leave(job)
    logged = cleaned(job)
    path = checkpoints_place(job.second)
    assert f"{path}/: {job.second.name} is not finished" in logged
    assert f"{checkpoints_place(job.first)}/: {job.first.name} is finished" in logged
    assert job.folder.list("checkpoints") == job.folder.list(path)
    assert job.folder.exists(f"{path}/search/00004-00000000/shared.pt")
    assert tops(job) == {"cases", "checkpoints", "plan.json"}


def test_a_network_that_is_retrained_keeps_its_checkpoints(tmp_path: Path) -> None:
    job = BegunJob(tmp_path)
    job.begin()
    job.finish(job.first)
    job.retraining(job.reference, 3)
    assert f"{job.reference.name} is not finished" in cleaned(job)
    assert job.folder.list("checkpoints")


def test_checkpoints_of_settings_that_the_job_no_longer_has_go(tmp_path: Path) -> None:
    job = finished(tmp_path)
    old = f"checkpoints/{job.first.name}-{'0' * 16}"
    checkpoint(job.folder.sub(f"{old}/search"), 3)
    assert "with settings that the job no longer has" in cleaned(job)
    assert not job.folder.exists(old)


@pytest.mark.parametrize("has_plan", [True, False])
def test_what_may_belong_to_a_case_that_is_not_known_yet_stays(
    tmp_path: Path, has_plan: bool
) -> None:
    job = BegunJob(tmp_path)
    if has_plan:
        job.begin(knows_tables=False)
    else:
        with Lease(job.folder):  # as a version that wrote no plan
            pass
    job.searching(job.first, 3)
    assert f"{job.first.name} is not finished" in cleaned(job)
    assert job.folder.list(checkpoints_place(job.first))


def test_checkpoints_of_searches_that_were_stopped_early_go(tmp_path: Path) -> None:
    job = BegunJob(tmp_path, seeds=[0, 1], asha={"first_epoch": 1, "reduction": 2})
    job.end()
    settings = job.folder.read_json("job.json")["settings"]["asha"]
    stopped = {job.first.key: "at epoch 1"}
    job.folder.write_json("asha.json", {"settings": settings, "rungs": {}, "stopped": stopped})
    job.searching(job.first, 3)
    assert f"the search of {job.first.name} was stopped early" in cleaned(job)
    assert not job.folder.list("checkpoints")


def test_without_yes_nothing_is_deleted_and_sizes_are_said(tmp_path: Path) -> None:
    job = finished(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    logged = stated(job)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    lines = logged.splitlines()
    assert lines[0].endswith("3 of 3 networks are done")
    assert "goes        1.0 kB  tune/: what Ray Tune keeps of a run" in lines
    assert "goes           4 B  temporary files of killed writers" in lines
    assert lines[-1] == "nothing was deleted; with --yes 1.0 kB would be"


def test_a_folder_that_a_driver_owns_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = finished(tmp_path)
    with Lease(job.folder):
        for args in ([], ["--yes"]):
            assert main(["clean", job.folder.uri, *args]) == 2
            printed = capsys.readouterr()
            assert f"is held by process {os.getpid()} on host {socket.gethostname()}" in printed.err
            assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert job.folder.exists("tune")


def test_the_folder_of_a_driver_that_died_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished(tmp_path)
    ended = subprocess.Popen(["true"])
    ended.wait()
    owner = {"host": socket.gethostname(), "process": ended.pid, "since": "noon"}
    job.folder.write_json("lease.json", owner)
    then = time.time() - 60
    os.utime(job.folder.path("lease.json"), (then, then))
    monkeypatch.setattr("orchestration.cli.clean.Lease", quick_lease)
    assert f"process {ended.pid} on host {socket.gethostname()} is gone" in cleaned(job)
    assert tops(job) == {"cases", "job.json"}


def quick_lease(storage: Storage) -> Lease:
    return Lease(storage, renew_s=0.1, expire_s=0.3)


def test_who_loses_the_folder_meanwhile_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished(tmp_path)

    class Lost(lease.Lease):
        def __enter__(self) -> Lost:
            super().__enter__()
            self.lost.set()
            return self

    monkeypatch.setattr("orchestration.cli.clean.Lease", Lost)
    with pytest.raises(StorageError, match=r"another driver took .*tiny; the rest stays"):
        cleaned(job)
    assert job.folder.exists("tune")


def test_warm_ups_stay_unless_they_are_named(tmp_path: Path) -> None:
    job = finished(tmp_path)
    path = warm(job)
    assert f"../{path}/: for other jobs too; --warmups deletes it" in cleaned(job)
    assert job.root.exists(f"{path}/end.json")
    assert f"../{path}/: all cases that start from it are finished" in cleaned(job, warmups=True)
    assert job.root.list("warmups") == []


def test_what_says_that_a_warm_up_is_whole_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise, if killed in between, a search would start from part of a warm-up.
    job, gone = finished(tmp_path), list[str]()
    path, delete = warm(job), Storage.delete

    def killed(storage: Storage, key: str) -> None:
        if "warmups" in storage.uri:
            gone.append(key)
            if len(gone) == 2:
                raise KeyboardInterrupt
        delete(storage, key)

    monkeypatch.setattr(Storage, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        cleaned(job, warmups=True)
    assert gone[0] == "end.json"
    assert not job.root.exists(f"{path}/end.json")


def test_a_warm_up_in_use_stays(tmp_path: Path) -> None:
    job = finished(tmp_path)
    path = warm(job)
    with Lease(job.root.sub(path)):
        assert f"../{path}/: it is being trained" in cleaned(job, warmups=True)
    assert job.root.exists(f"{path}/end.json")


def test_a_warm_up_stays_while_a_case_of_the_job_is_not_finished(tmp_path: Path) -> None:
    job = BegunJob(tmp_path)
    path = warm(job)
    job.finish(job.first)
    job.end()
    assert "a case of this job is not finished" in cleaned(job, warmups=True)
    assert job.root.exists(f"{path}/end.json")


@pytest.mark.parametrize("state", ["runs", "unfinished", "unreadable"])
def test_a_warm_up_stays_while_another_job_may_start_from_it(tmp_path: Path, state: str) -> None:
    job = finished(tmp_path)
    path = warm(job)
    other = BegunJob(tmp_path, name="other")
    if state == "unfinished":
        other.begin()
    if state == "unreadable":
        other.folder.write_text("plan.json", "{")
    if state == "runs":
        with Lease(other.folder):
            assert "the job other is not finished" in cleaned(job, warmups=True)
    else:
        assert "the job other is not finished" in cleaned(job, warmups=True)
    assert job.root.exists(f"{path}/end.json")


def test_a_finished_job_beside_it_needs_no_warm_up(tmp_path: Path) -> None:
    job = finished(tmp_path)
    warm(job)
    finished(tmp_path, name="other")
    cleaned(job, warmups=True)
    assert job.root.list("warmups") == []


def test_a_shared_search_stays_for_further_budgets_unless_it_is_named(tmp_path: Path) -> None:
    job = finished(tmp_path, search={"share": "target"})
    path = f"searches/{job.first.search_key}"
    checkpoint(job.folder.sub(path), 5)
    job.folder.write_json(f"{path}/end.json", {})
    assert "further budgets begin there; --warmups deletes it" in cleaned(job)
    assert job.folder.exists(path)
    cleaned(job, warmups=True)
    assert not job.folder.exists(path)


def test_a_shared_search_stays_while_a_budget_is_not_finished(tmp_path: Path) -> None:
    job = BegunJob(tmp_path, search={"share": "target"})
    checkpoint(job.folder.sub(f"searches/{job.first.search_key}"), 5)
    job.finish(job.first)
    job.end()
    assert f"{job.second.name} is not finished" in cleaned(job, warmups=True)
    assert job.folder.list("searches")


def test_a_job_that_was_cleaned_has_nothing_to_delete(tmp_path: Path) -> None:
    job = finished(tmp_path)
    cleaned(job)
    assert cleaned(job).splitlines()[-1] == "nothing is to be deleted"
    assert all(is_done(case, job.folder) for case in job.cases.values())


def test_yes_and_dry_run_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = finished(tmp_path)
    assert main(["clean", job.folder.uri, "--yes", "--dry-run"]) == 2
    assert capsys.readouterr().err == (
        "--yes deletes and --dry-run does not; leave one of them out\n"
    )
    assert job.folder.exists("tune")


def test_what_holds_no_job_is_refused_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine"
    (path / "tune").mkdir(parents=True)
    assert main(["clean", str(path), "--yes"]) == 2
    assert f"{path} holds no job" in capsys.readouterr().err
    assert [path.name for path in path.iterdir()] == ["tune"]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB")),
        *((999_950, "1.0 MB"), (109_000_000, "109.0 MB"), (2_500_000_000_000, "2.5 TB")),
    ],
)
def test_sizes_are_told_in_the_unit_that_fits(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text
