"""Write the comparison of a job to its folder: tables, figures and the HTML report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.storage import Storage
from orchestration.config.storage_layout import COMPARISON_STEM, comparison_file
from orchestration.reports.row_files import SUFFIXES, write_rows
from orchestration.reports.table import read_results, row_of
from orchestration.state.result import Result


def write_comparison(
    job: Storage,
    tables: Storage,
    results: Sequence[Result] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write `comparison/`: the table in three formats, pictures, and all of it on one page.

    Args:
        job: its folder.
        tables: the folder of the latency tables.
        results: of the job, in the order of tables; None: they are read.
        facts: the content of `job.json`; None: it is read.
    """
    from orchestration.reports.figures.gallery import write_pictures
    from orchestration.reports.html import write_report

    results = read_results(job) if results is None else results
    rows = [row_of(result) for result in results]
    for suffix in SUFFIXES:
        write_rows(job, comparison_file(COMPARISON_STEM), rows, suffix)
    write_pictures(job, tables, results)
    write_report(job, results, facts)
