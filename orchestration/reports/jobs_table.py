"""Results of several jobs side by side: a table for each hardware, with a column for the job.

Latencies of two devices are not comparable, even if their hardware has the same name: results
measured on another processor, GPU or phone are in a separate table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestration.config.storage_layout import table_name
from orchestration.latency.device import identity
from orchestration.planning.case import ORDER
from orchestration.reports.findings import findings
from orchestration.reports.results import name_without_seed, repeats, seed_of
from orchestration.reports.table import (
    COLUMNS,
    REPEATED,
    cell,
    columns_of,
    empty_table,
    mean_cell,
    name_of,
    notes,
    read_results,
    row_of,
)
from orchestration.reports.text import plain_text
from orchestration.state.job_folder import JobFolder, labels
from orchestration.state.result import Result, value_of

if TYPE_CHECKING:
    from rich.table import Table

LEFT_OUT = ("top5", "search_s")
"""Columns left out to make room for the job column; files contain them."""

WIDTH = 120


@dataclass(frozen=True)
class JobResults:
    """The finished networks of one of several jobs."""

    label: str
    """Name of the job, unique among the jobs in the table."""
    folder: str
    results: list[Result]
    """Results, with the label as "job"."""
    devices: Mapping[str, str]
    """Description of the device of each latency table, by table key."""


def read_jobs(folders: Sequence[JobFolder]) -> list[JobResults]:
    """Read the results of jobs. Jobs of equal names are labelled with their folders.

    Raises:
        StorageError: a result cannot be read.
    """
    return [_read(job, label) for job, label in zip(folders, labels(folders), strict=True)]


def _read(job: JobFolder, label: str) -> JobResults:
    results: list[Result] = [{**result, "job": label} for result in read_results(job.folder)]
    keys = dict.fromkeys(str(result["table_key"]) for result in results)
    tables = [(key, job.tables.find_json(table_name(key))) for key in keys]
    devices = {key: _device(table) for key, table in tables if table is not None}
    return JobResults(label, job.folder.uri, results, devices)


def _device(table: dict[str, Any]) -> str:
    return ", ".join(map(str, identity(table.get("device") or {}).values()))


def rows_of_jobs(jobs: Sequence[JobResults]) -> list[dict[str, Any]]:
    """A row for each network, with the folder of its job."""
    return [{"folder": job.folder, **row_of(result)} for job in jobs for result in job.results]


def comparison_of_jobs(jobs: Sequence[JobResults]) -> str:
    """Tables, mean and spread over seeds, and the findings about each network within its job."""
    return "\n\n".join(_section(title, group) for title, group in _groups(jobs))


def _groups(jobs: Sequence[JobResults]) -> Iterator[tuple[str, list[Result]]]:
    """Comparable results, each group with the name of its device."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for job in jobs:
        for result in job.results:
            device = job.devices.get(str(result["table_key"]), "")
            groups.setdefault((str(result["hardware"]), device), []).append(result)
    names = [hardware for hardware, _ in groups]
    for (hardware, device), results in sorted(groups.items()):
        is_one = names.count(hardware) == 1
        yield hardware if is_one else f"{hardware}, {device or 'device not known'}", results


def _section(title: str, results: Sequence[Result]) -> str:
    order = list(dict.fromkeys(str(result["job"]) for result in results))
    ordered = sorted(results, key=lambda result: _sort_key(result, order))
    groups = repeats(ordered)
    tables = [_table(title, ordered)]
    if any(len(group) > 1 for group in groups):
        tables.append(_repeats_table(groups))
    own = {job: [result for result in results if result["job"] == job] for job in order}
    lines = [f"{job}: {line}" for job in order for line in (*findings(own[job]), *notes(own[job]))]
    return plain_text(WIDTH, *tables, *lines)


def _sort_key(result: Result, jobs: Sequence[str]) -> tuple[Any, ...]:
    """Sort key: networks of the same kind and budget are adjacent, whatever their job."""
    budget_ms = result["budget_ms"] or 0.0
    key = result["target"], ORDER.index(result["kind"]), budget_ms, name_without_seed(result)
    return *key, jobs.index(result["job"]), seed_of(result)


def _table(title: str, results: Sequence[Result]) -> Table:
    columns = [name for name in columns_of(results) if name not in LEFT_OUT]
    table = _job_table(title, [COLUMNS[name][0] for name in columns])
    for result in results:
        cells = [cell(name, value_of(result, name)) for name in columns]
        table.add_row(name_of(result, has_seed="seed" in columns), result["job"], *cells)
    return table


def _repeats_table(groups: Sequence[Sequence[Result]]) -> Table:
    headers = ["budget ms", "seeds", *(COLUMNS[name][0] for name in REPEATED)]
    table = _job_table("mean ± standard deviation over seeds", headers)
    for group in groups:
        figures = [
            mean_cell(name, [value_of(result, name) for result in group]) for name in REPEATED
        ]
        cells = [cell("budget_ms", group[0]["budget_ms"]), str(len(group)), *figures]
        table.add_row(name_of(group[0], has_seed=True), group[0]["job"], *cells)
    return table


def _job_table(title: str, headers: Sequence[str]) -> Table:
    """Empty table with the job as second column, the only column whose text is wrapped."""
    table = empty_table(title, ["job", *headers])
    for column in table.columns:
        column.no_wrap = True
    job = table.columns[1]
    job.justify, job.no_wrap, job.overflow = "left", False, "fold"
    table.collapse_padding, table.pad_edge = True, False
    return table
