"""Status of a job that is running, killed, stopped, ended, or not begun."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from cluster.lease import Lease
from cluster.storage import Storage, StorageError
from orchestration.cli.app import main
from orchestration.config.early_stopping import AshaSettings
from orchestration.reports.status import CaseStatus, JobStatus, Left, job_status
from orchestration.reports.status_text import status_lines
from orchestration.state.job_folder import job_folder
from orchestration.state.run_file import known_further
from tests.support.job_folder import result, write_job
from tests.support.unfinished_job import RETRAIN, SEARCH, WARMUP, BegunJob, checkpoint

NOW = 1_800_000_000.0


@pytest.fixture
def begun(tmp_path: Path) -> BegunJob:
    job = BegunJob(tmp_path)
    job.begin()
    return job


def status(job: BegunJob) -> JobStatus:
    return job_status(job.root, job.job.name)


def of(job: BegunJob, name: str) -> CaseStatus:
    return next(case for case in status(job).cases if case.name == name)


def text(job: BegunJob, now: float = NOW) -> str:
    return "\n".join(status_lines(status(job), "tiny", job.folder.uri, now))


def test_a_case_that_is_done_shows_its_latency_and_top1(begun: BegunJob) -> None:
    begun.finish(begun.first, measured_ms=0.07, top1=0.981)
    actual = of(begun, begun.first.name)
    assert (actual.state, actual.latency_ms, actual.top1) == ("done", 0.07, 0.981)


def test_a_network_that_is_found_is_to_be_retrained(begun: BegunJob) -> None:
    begun.searching(begun.first, WARMUP + SEARCH)
    begun.derive(begun.first)
    actual = of(begun, begun.first.name)
    assert (actual.text, actual.latency_ms) == ("derived, not retrained", 0.075)
    assert actual.left == {"retraining": RETRAIN}


def test_a_search_in_progress_shows_its_epoch_and_its_last_sign(begun: BegunJob) -> None:
    begun.searching(begun.first, 3, written=NOW - 100)
    begun.searching(begun.first, 4, written=NOW - 12)
    actual = of(begun, begun.first.name)
    assert (actual.state, actual.text) == ("begun", "search, 4 of 5 epochs")
    assert actual.last_checkpoint == NOW - 12
    assert actual.left == {"search": 1, "retraining": 4}
    row = next(line for line in text(begun).splitlines() if begun.first.name in line)
    assert "12 s ago" in row


def test_a_checkpoint_that_is_not_whole_does_not_count(begun: BegunJob) -> None:
    begun.searching(begun.first, 3)
    begun.searching(begun.first, 4, size=2)
    assert of(begun, begun.first.name).text == "search, 3 of 5 epochs"


def test_a_search_that_has_ended_is_to_be_derived(begun: BegunJob) -> None:
    begun.searching(begun.first, WARMUP + SEARCH)
    assert of(begun, begun.first.name).text == "searched, not yet derived"


def test_a_network_that_is_retrained_is_at_its_epoch(begun: BegunJob) -> None:
    begun.retraining(begun.reference, 3)
    assert of(begun, begun.reference.name).text == "retraining, 3 of 4 epochs"
    assert of(begun, begun.first.name).text == "not begun"


def test_what_the_workers_of_another_case_had_begun_counts_when_that_is_finished(
    begun: BegunJob,
) -> None:
    begun.finish(begun.first)
    begun.retraining(begun.reference, 3)
    assert of(begun, begun.reference.name).text == "retraining, 3 of 4 epochs"


def test_a_result_of_other_settings_is_to_be_done_again(begun: BegunJob) -> None:
    begun.finish(begun.first, key="of-other-settings")
    assert of(begun, begun.first.name).state == "to do again"


def test_checkpoints_of_other_settings_do_not_count(begun: BegunJob) -> None:
    place = f"checkpoints/{begun.first.name}-{'0' * 16}/search"
    checkpoint(begun.folder.sub(place), 4)
    assert of(begun, begun.first.name).state == "not begun"


def test_a_warm_up_is_shown_while_cases_wait_for_it(begun: BegunJob) -> None:
    place = begun.root.sub(f"warmups/{begun.first.warmup_key}")
    (none,) = status(begun).warmups
    assert none.text == "not begun"
    checkpoint(place, 1, phase="warmup")
    (one,) = status(begun).warmups
    assert (one.name, one.text, one.left) == ("warm-up", "1 of 2 epochs", {"warm-up": 1})
    begun.searching(begun.first, 3)
    begun.searching(begun.second, 3)
    assert status(begun).warmups == ()


def test_budgets_that_share_a_search_show_it_and_it_is_counted_once(tmp_path: Path) -> None:
    job = BegunJob(tmp_path, ("90%", "100%", "110%"), search={"share": "target"})
    job.begin()
    searches = [case for case in job.cases.values() if case.kind == "search"]
    checkpoint(job.folder.sub(f"searches/{searches[0].search_key}"), 4)
    actual = [of(job, case.name) for case in searches]
    assert {item.text for item in actual} == {"search, 4 of 5 epochs"}
    assert sorted((item.left or {}).get("search", 0) for item in actual) == [0, 0, 1]


def test_random_networks_are_counted_and_their_end_cannot_be_told(tmp_path: Path) -> None:
    job = BegunJob(tmp_path, controls=True)
    job.begin()
    case = next(case for case in job.cases.values() if case.kind == "random")
    values = {"key": case.key, "networks": [{}, {}]}
    job.folder.write_json(f"{case.folder}/random.json", values)
    assert of(job, case.name).text == "2 random networks trained"
    assert "not known yet" in text(job)


def test_a_search_that_was_ended_early_says_why(tmp_path: Path) -> None:
    asha = {"first_epoch": 1, "reduction": 2}
    job = BegunJob(tmp_path, seeds=[0, 1], asha=asha)
    job.begin()
    settings = json.loads(json.dumps(vars(AshaSettings(**asha))))
    stopped = {job.first.key: "at epoch 1 (score 0.2)"}
    job.folder.write_json("asha.json", {"settings": settings, "rungs": {}, "stopped": stopped})
    assert of(job, job.first.name).state == "stopped early"
    assert f"{job.first.name} stopped early: at epoch 1 (score 0.2)" in text(job)
    job.folder.write_json("asha.json", {"settings": {}, "rungs": {}, "stopped": stopped})
    assert of(job, job.first.name).state == "not begun"


def test_the_time_that_is_left_is_the_makespan_of_the_rest(begun: BegunJob) -> None:
    # Epochs are 2 s of search, 1 s of retraining. Left are 3 x 1 s of the reference, 1 x 2 + 4 x 1
    # of the first case, and 2 x 2 + 4 x 1 of the second, which follows the reference: 3 + 8 s.
    known_further(list(begun.cases.values()), begun.folder, at_once=2)
    begun.searching(begun.first, 4)
    begun.searching(begun.second, 3)
    begun.retraining(begun.reference, 1, seconds=1.0)
    actual = status(begun)
    assert [actual.case_left(case).seconds for case in actual.cases] == [3.0, 6.0, 8.0]
    assert actual.left == Left(11.0, is_all=True)
    assert "left     about 11 s of training" in text(begun)


def test_before_every_stage_was_timed_the_time_left_is_the_least(begun: BegunJob) -> None:
    assert "left     not known yet" in text(begun)
    begun.searching(begun.first, 4)
    begun.searching(begun.second, 3)
    actual = status(begun)  # 1 and 2 epochs of search, two cases at once; no retraining was timed
    assert actual.left == Left(4.0, is_all=False)
    assert "left     at least 4 s of training" in text(begun)
    rows = [line.split() for line in text(begun).splitlines() if "search, " in line]
    assert [words[-3:] for words in rows] == [[">", "2", "s"], [">", "4", "s"]]


def test_a_job_that_runs_shows_its_driver(begun: BegunJob) -> None:
    with Lease(begun.folder):
        actual = status(begun)
        assert actual.holder is not None
        assert actual.holder.is_alive
        driver = text(begun, actual.holder.renewed + 3).splitlines()[1]
    assert driver.startswith(f"driver   process {os.getpid()} on host ")
    assert driver.endswith(" is alive, last heartbeat 3 s ago")


def test_a_killed_driver_is_gone_and_the_way_out_is_named(begun: BegunJob) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    owner = {"host": socket.gethostname(), "process": ended.pid, "since": "noon"}
    begun.folder.write_json("lease.json", owner)
    then = time.time() - 3 * 86400
    os.utime(begun.folder.path("lease.json"), (then, then))
    who = f"process {ended.pid} on host {socket.gethostname()} since noon is gone"
    assert text(begun, time.time()).splitlines()[1] == (
        f"driver   {who}, last heartbeat 3 days ago; the same command goes on"
    )


def test_a_stopped_job_goes_on_by_the_same_command(begun: BegunJob) -> None:
    driver = text(begun).splitlines()[1]
    assert driver.startswith("driver   none; the run of 20")
    assert driver.endswith(" was stopped; the same command goes on")


def test_the_end_of_a_job_says_how_long_it_took_and_what_failed(begun: BegunJob) -> None:
    begun.finish(begun.reference)
    begun.finish(begun.first)
    begun.searching(begun.second, 3)
    begun.end(failed={begun.second.name: "the loss is not finite"})
    assert of(begun, begun.second.name).text == "failed; search, 3 of 5 epochs"
    shown = text(begun)
    assert " and ended after 5 min" in shown.splitlines()[1]
    assert f"{begun.second.name} failed: the loss is not finite" in shown
    assert "networks 3: 2 done, 1 failed" in shown


def test_what_failed_before_is_no_longer_failed_when_the_job_runs_again(begun: BegunJob) -> None:
    begun.end(failed={begun.second.name: "the loss is not finite"})
    begun.begin()
    assert of(begun, begun.second.name).state == "not begun"


def test_a_driver_that_has_not_begun_anything_is_shown(tmp_path: Path) -> None:
    job = BegunJob(tmp_path)
    with Lease(job.folder):
        assert status(job).cases == ()
        assert "is alive" in text(job)
        assert text(job).endswith("no network is planned yet")


def test_tables_that_are_being_measured_are_named(tmp_path: Path) -> None:
    job = BegunJob(tmp_path)
    job.begin(knows_tables=False)
    assert "tables   to be measured: mobile" in text(job)
    assert not status(job).left.is_all


def test_what_a_killed_driver_of_an_earlier_version_left_is_shown(tmp_path: Path) -> None:
    job = BegunJob(tmp_path)
    with Lease(job.folder):
        pass
    job.finish(job.first)
    job.searching(job.second, 4)
    assert job_folder(job.folder.uri).name == "tiny"
    assert of(job, job.first.name).state == "done"
    assert of(job, job.second.name).text == "search, 4 epochs"


def test_lines_fit_120_columns(tmp_path: Path) -> None:
    job = BegunJob(tmp_path, controls=True, seeds=[0, 123456789])
    job.begin()
    for case in job.cases.values():
        job.folder.write_json(f"{case.folder}/result.json", {"key": "other"})
    job.searching(job.first, 3, seconds=1e6)
    lines = status_lines(status(job), "tiny", job.folder.uri, NOW)
    assert max(map(len, lines[2:])) <= 120
    assert all("…" not in line for line in lines)


def test_asking_writes_nothing(begun: BegunJob) -> None:
    begun.searching(begun.first, 3)
    before = tree(begun.root)
    status(begun)
    assert tree(begun.root) == before


def tree(storage: Storage) -> dict[str, tuple[int, bytes]]:
    files = [path for path in storage.path().rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_the_command_reads_a_finished_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write_job(tmp_path, [result("mobile-0.31ms"), result("mobile-reference")])
    assert main(["status", job.uri]) == 0
    assert "networks 2: 2 done" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["nowhere", "file", "empty"])
def test_what_is_no_job_ends_with_code_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert main(["status", str(tmp_path / place)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{tmp_path / place} holds no job; expected <storage>/<job>\n"


def test_a_storage_in_place_of_a_job_names_its_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_job(tmp_path, [])
    assert main(["status", str(tmp_path)]) == 2
    assert "; it holds the jobs search_mobile, name one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": "job-plan/9"}', '{"format": "job-plan/1", "cases": [{}]}']
)
def test_a_plan_that_cannot_be_read_is_named(begun: BegunJob, content: str) -> None:
    begun.folder.write_text("plan.json", content)
    with pytest.raises(StorageError, match=r"plan\.json (cannot be read|is not JSON)"):
        status(begun)


def test_a_run_that_ends_while_it_is_looked_at_is_read_again(
    begun: BegunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Storage.read_json

    def ending(storage: Storage, key: str) -> object:
        if key == "plan.json":
            begun.end()
        return read(storage, key)

    monkeypatch.setattr(Storage, "read_json", ending)
    assert status(begun).plan.ended is not None
