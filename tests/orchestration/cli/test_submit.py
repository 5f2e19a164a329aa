"""`proxyless submit --address`: errors before submitting, and the table that is fetched."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from cluster.storage import Storage
from orchestration.cli import submit
from orchestration.cli.app import main
from orchestration.cli.submit import fetched_table
from orchestration.config.job import Job
from orchestration.config.loading import load_job
from tests.support.job_folder import result, write_job


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch) -> Path:
    """A local folder that stands in for s3://bucket. Other storages are unaffected."""
    folder = tmp_path / "bucket"

    def storage(uri: str) -> Storage:
        return Storage(uri.replace("s3://bucket", str(folder)))

    monkeypatch.setattr(submit, "Storage", storage)
    return folder


@pytest.fixture
def job(job_file: Path) -> Job:
    return load_job(str(job_file), ["storage=s3://bucket/results/", "name=search_mobile"])


def test_the_table_of_a_job_in_s3_comes_back(bucket: Path, job: Job, tmp_path: Path) -> None:
    write_job(bucket / "results", [result("mobile-0.31ms"), result("mobile-reference")])
    line = fetched_table(job, tmp_path)
    path = tmp_path / "search_mobile.csv"
    assert line == f"results s3://bucket/results/search_mobile, 2 networks in {path}"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["case"] for row in rows] == ["mobile-reference", "mobile-0.31ms"]


def test_a_job_without_a_finished_network_has_no_table(
    bucket: Path, job: Job, tmp_path: Path
) -> None:
    (bucket / "results").mkdir(parents=True)
    expected = "results s3://bucket/results/search_mobile has no finished network"
    assert fetched_table(job, tmp_path) == expected
    assert not list(tmp_path.glob("*.csv"))


def test_a_storage_that_cannot_be_read_from_here_is_named(job: Job, tmp_path: Path) -> None:
    job = load_job_in(job, "gs://bucket")
    line = fetched_table(job, tmp_path)
    assert line.startswith("results gs://bucket/search_mobile; no table was fetched: storage gs://")


def test_a_folder_of_the_same_name_here_is_not_taken_for_that_of_the_cluster(
    job: Job, tmp_path: Path
) -> None:
    write_job(tmp_path, [result("mobile-0.31ms")])
    line = fetched_table(load_job_in(job, str(tmp_path)), tmp_path)
    assert line == f"results {tmp_path}/search_mobile, on the machine where the driver ran"
    assert not list(tmp_path.glob("*.csv"))


def load_job_in(job: Job, storage: str) -> Job:
    return Job(**{**vars(job), "storage": storage})


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--address", "ray://a:10001"], "--address is 'ray://a:10001'; expected http:// or https"),
        (["--address", "http://127.0.0.1:1"], "nothing answers at http://127.0.0.1:1"),
        (["--aws-credentials"], "--aws-credentials belongs to --address; add that, or leave it"),
        (["--address", "http://a", "--set", "search.epoch=1"], "search.epoch is not a setting"),
    ],
)
def test_what_cannot_be_submitted_ends_with_code_2_and_one_line(
    job_file: Path, args: list[str], complaint: str, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(job_file.parent)
    job_file.chmod(0o755)
    assert main(["submit", str(job_file), *args]) == 2
    stderr = capsys.readouterr().err
    assert complaint in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(("code", "is_fetched"), [(0, True), (1, True), (2, False), (130, False)])
def test_the_table_is_fetched_where_networks_may_be_finished(
    job_file: Path, code: int, is_fetched: bool, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(submit, "submit", lambda *_, **__: code)
    assert main(["submit", str(job_file), "--address", "http://127.0.0.1:1"]) == code
    assert capsys.readouterr().out.startswith("results ") is is_fetched
