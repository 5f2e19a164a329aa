"""Comparison of several jobs, by the command and as a file."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.lease import Lease
from cluster.storage import Storage
from orchestration.cli.app import main
from orchestration.reports import html
from orchestration.reports.figures import gallery
from orchestration.reports.jobs_table import comparison_of_jobs, read_jobs, rows_of_jobs
from orchestration.state.job_folder import job_folder, labels
from tests.support.job_folder import HARDWARE, baseline_result, latency_table, result
from tests.support.job_folder import write_job as write_search_mobile

REFERENCE = "mobile-reference"


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip figures, which take a second per job and have their own tests."""
    monkeypatch.setattr(gallery, "write_pictures", lambda *_: None)
    monkeypatch.setattr(html, "write_report", lambda *_: None)


def write_job(root: Path, name: str, *results: dict[str, Any], cpu: str = "Xeon") -> Storage:
    """Create a job with this name, measured on a processor."""
    made = write_search_mobile(root, [{**item, "job": name} for item in results])
    if name != "search_mobile":
        shutil.move(made.uri, root / name)
    table = replace(latency_table(), device={"cpu": cpu, "host": "10.0.0.1"})
    Storage(str(root)).write_json("tables/table0.json", table.to_dict())
    return Storage(str(root / name))


@pytest.fixture
def two(tmp_path: Path) -> list[Storage]:
    """Two jobs in one storage with equal budgets and different networks."""
    first = [result("mobile-0.31ms", top1=0.981), result(REFERENCE)]
    second = [result("mobile-0.31ms", top1=0.99), result(REFERENCE, measured_ms=0.4)]
    return [write_job(tmp_path, "one", *first), write_job(tmp_path, "two", *second)]


def text(jobs: list[Storage]) -> str:
    return comparison_of_jobs(read_jobs([job_folder(job.uri) for job in jobs]))


def rows_of(shown: str) -> list[list[str]]:
    """Cells of the rows of networks in a text."""
    lines = [line.split() for line in shown.splitlines()]
    return [words for words in lines if words and words[-1].replace(".", "").isdigit()]


def test_a_column_says_the_job_and_equal_budgets_stand_together(two: list[Storage]) -> None:
    shown = text(two)
    assert shown.splitlines()[0] == HARDWARE
    assert shown.splitlines()[2].split()[:2] == ["network", "job"]
    assert [" ".join(words[:-2]) for words in rows_of(shown)] == [
        "reference (to beat) one - 0.380 0.380 98.5",
        "reference (to beat) two - 0.380 0.400 98.5",
        "mobile-0.31ms one 0.310 0.309 0.312 98.1",
        "mobile-0.31ms two 0.310 0.309 0.312 99.0",
    ]


def test_gains_are_told_job_by_job(two: list[Storage]) -> None:
    # 0.312 ms is 17.9 % less than 0.38 ms and 22 % less than 0.4 ms.
    assert text(two).splitlines()[-2:] == [
        "one: mobile-0.31ms takes 18 % less time than the reference, top-1 0.4 points lower",
        "two: mobile-0.31ms takes 22 % less time than the reference, top-1 0.5 points higher",
    ]


def test_notes_stand_behind_their_job(tmp_path: Path) -> None:
    jobs = [write_job(tmp_path, name, result(REFERENCE, notes=["odd"])) for name in ("one", "two")]
    assert "two: mobile-reference: odd" in text(jobs).splitlines()


def test_every_hardware_has_a_table_of_its_own(tmp_path: Path) -> None:
    gpu = result("gpu-1ms", hardware="gpu (H200)", target="gpu")
    jobs = [write_job(tmp_path, "one", gpu), write_job(tmp_path, "two", result(REFERENCE))]
    titles = [part.splitlines()[0] for part in text(jobs).split("\n\n") if part[0] not in " o"]
    assert titles == ["gpu (H200)", HARDWARE]


def test_two_devices_of_the_same_hardware_are_not_compared(tmp_path: Path) -> None:
    jobs = [
        write_job(tmp_path / cpu, cpu.lower(), result(REFERENCE), cpu=cpu)
        for cpu in ("Xeon", "EPYC")
    ]
    assert [line for line in text(jobs).splitlines() if line.startswith("mobile on")] == [
        f"{HARDWARE}, EPYC",
        f"{HARDWARE}, Xeon",
    ]


def test_seeds_have_their_mean_in_each_job(tmp_path: Path) -> None:
    seeds = [
        result("mobile-0.31ms", top1=0.96),
        result("mobile-0.31ms-seed1", seed=1, top1=0.98),
    ]
    jobs = [write_job(tmp_path, name, *seeds) for name in ("one", "two")]
    means = [line.split() for line in text(jobs).splitlines() if "97.0 ± 1.4" in line]
    assert [words[:4] for words in means] == [
        ["mobile-0.31ms", "one", "0.310", "2"],
        ["mobile-0.31ms", "two", "0.310", "2"],
    ]


def test_lines_fit_a_terminal_of_120_columns(tmp_path: Path) -> None:
    widest = baseline_result("mobilenet_v2_1.4", params=25_557_032, macs=3_678_200_000)
    seeded = result("mobile-0.31ms-seed1", seed=1)
    names = ("a_job_with_a_name_that_is_too_long_for_a_column", "two")
    jobs = [write_job(tmp_path, name, widest, seeded, result(REFERENCE)) for name in names]
    table = [line for line in text(jobs).splitlines() if " takes " not in line]
    assert max(map(len, table)) <= 120
    assert "25,557.0" in "".join(table)


def test_jobs_of_one_name_are_told_apart_by_the_folders_around_them(tmp_path: Path) -> None:
    places = [tmp_path / "a" / "kept", tmp_path / "b" / "kept"]
    jobs = [write_job(place, "one", result(REFERENCE)) for place in places]
    other = write_job(tmp_path / "a" / "kept", "other", result(REFERENCE))
    actual = labels([job_folder(job.uri) for job in [*jobs, other]])
    assert actual == ["a/kept/one", "b/kept/one", "other"]


def test_the_command_writes_the_comparison_of_every_job(two: list[Storage]) -> None:
    assert main(["compare", *(job.uri for job in two)]) == 0
    for job, top1 in zip(two, (0.981, 0.99), strict=True):
        for suffix in ("json", "csv", "parquet"):
            assert job.exists(f"comparison/comparison.{suffix}")
        rows = job.read_json("comparison/comparison.json")["rows"]
        assert [row["top1"] for row in rows] == [0.985, top1]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_all_networks_go_into_one_file(
    two: list[Storage], tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / f"all.{suffix}"
    assert main(["compare", *(job.uri for job in two), "--out", str(out)]) == 0
    assert capsys.readouterr().out.endswith(f"4 networks in {out}\n")
    rows = rows_of_jobs(read_jobs([job_folder(job.uri) for job in two]))
    assert [(row["folder"], row["job"], row["case"]) for row in rows] == [
        (job.uri, name, case)
        for job, name in zip(two, ("one", "two"), strict=True)
        for case in (REFERENCE, "mobile-0.31ms")
    ]
    assert read(out) == (rows if suffix != "csv" else [as_text(row) for row in rows])


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a file."""
    if path.suffix == ".parquet":
        actual: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return actual
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(path.read_text())))
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def as_text(row: dict[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in row.items()}


@pytest.mark.parametrize(
    ("out", "complaint"),
    [
        ("all.xlsx", "all.xlsx; expected a file that ends in .csv, .parquet or .json"),
        ("all", "all; expected a file that ends in .csv, .parquet or .json"),
        ("folder.csv", "folder.csv, which is a folder; expected a file, e.g. all.csv"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is(
    two: list[Storage],
    tmp_path: Path,
    out: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert main(["compare", two[0].uri, "--out", str(tmp_path / out)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"--out is {tmp_path}/{complaint}\n")
    assert not two[0].exists("comparison")


def test_a_folder_that_holds_no_job_is_refused_before_anything_is_written(
    two: list[Storage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["compare", two[0].uri, str(tmp_path / "empty")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/empty holds no job; expected <storage>/<job>\n"
    assert not two[0].exists("comparison")


def test_the_comparison_of_a_running_job_is_left_to_its_driver(
    two: list[Storage], capsys: pytest.CaptureFixture[str]
) -> None:
    with Lease(two[0]):
        assert main(["compare", *(job.uri for job in two)]) == 0
    assert "network" in capsys.readouterr().out
    assert not two[0].exists("comparison")
    assert two[1].exists("comparison/comparison.csv")


def test_a_folder_that_is_named_twice_counts_once(
    two: list[Storage], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", two[0].uri, f"{two[1].uri}/../one"]) == 0
    header = capsys.readouterr().out.splitlines()[2]
    assert header.split()[:2] == ["network", "budget"]


def test_a_job_without_a_finished_network_says_so(
    two: list[Storage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write_job(tmp_path, "empty")
    assert main(["compare", empty.uri]) == 0
    assert capsys.readouterr().out == f"{empty.uri} has no finished network yet\n"
    assert main(["compare", empty.uri, two[0].uri]) == 0
    assert capsys.readouterr().out.endswith(f"{empty.uri} has no finished network yet\n")


def test_a_result_that_is_damaged_is_named(
    two: list[Storage], capsys: pytest.CaptureFixture[str]
) -> None:
    place = two[1].path(f"cases/{REFERENCE}/result.json")
    place.write_text("{")
    assert main(["compare", *(job.uri for job in two)]) == 2
    assert capsys.readouterr().err.startswith(f"{place} is not JSON")
    assert not two[0].exists("comparison")
