"""Results of any age have the fields that their type requires, and are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired, get_origin, get_type_hints

from orchestration.reports.jobs_table import comparison_of_jobs, read_jobs
from orchestration.reports.results import seed_of
from orchestration.reports.table import comparison_text, read_results, row_of
from orchestration.state.job_folder import job_folder
from orchestration.state.result import Result, value_of
from tests.support.job_folder import result, write_job

OLD: Any = {name: value for name, value in result("mobile-0.31ms").items() if name != "seed"}
"""A result as the first versions wrote it, which knew one seed."""


def required() -> set[str]:
    hints = get_type_hints(Result, include_extras=True)
    return {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}


def test_a_result_of_an_older_version_has_all_that_is_required() -> None:
    assert required() <= OLD.keys()


def test_fields_that_came_later_are_not_required() -> None:
    later = {"seed", "parts", "search_key", "search_ms", "warmup_key", "warmup_s", "total_stride"}
    assert not required() & later


def test_a_result_of_an_older_version_is_read(tmp_path: Path) -> None:
    job = write_job(tmp_path, [OLD])
    (actual,) = read_results(job)
    assert (seed_of(actual), row_of(actual)["seed"], value_of(actual, "total_stride")) == (
        0,
        None,
        None,
    )
    assert "mobile-0.31ms" in comparison_text([actual])
    assert "mobile-0.31ms" in comparison_of_jobs(read_jobs([job_folder(job.uri)]))
