"""Results of several jobs side by side: one table for each hardware, a column says the job.

Latencies of two devices do not compare, though their hardware may be called the same: what was
measured on another processor, GPU or phone stands in a table of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestration.config.storage_layout import table_name
from orchestration.latency.device import identity
from orchestration.planning.cases import ORDER
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
"""Columns for which there is no room beside that of the job; files have them."""

WIDTH = 120


@dataclass(frozen=True)
class JobResults:
    """The finished networks of one of several jobs."""

    label: str
    """What the job is called beside the others."""
    folder: str
    results: list[Result]
    """Their "job" is the label."""
    devices: Mapping[str, str]
    """In words, by key of a latency table: the device that it was measured on."""


def read_jobs(folders: Sequence[JobFolder]) -> list[JobResults]:
    """The results of jobs; those of equal names are told apart by their folders.

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
    """A row for every network, with the folder of its job."""
    return [{"folder": job.folder, **row_of(result)} for job in jobs for result in job.results]


def comparison_of_jobs(jobs: Sequence[JobResults]) -> str:
    """Tables, mean and spread over seeds, and what each network gained in its own job."""
    return "\n\n".join(_section(title, group) for title, group in _groups(jobs))


def _groups(jobs: Sequence[JobResults]) -> Iterator[tuple[str, list[Result]]]:
    """Results that compare, with what their device is called."""
    found: dict[tuple[str, str], list[Result]] = {}
    for job in jobs:
        for result in job.results:
            device = job.devices.get(str(result["table_key"]), "")
            found.setdefault((str(result["hardware"]), device), []).append(result)
    names = [hardware for hardware, _ in found]
    for (hardware, device), results in sorted(found.items()):
        is_one = names.count(hardware) == 1
        yield hardware if is_one else f"{hardware}, {device or 'device not known'}", results


def _section(title: str, results: Sequence[Result]) -> str:
    order = list(dict.fromkeys(str(result["job"]) for result in results))
    ordered = sorted(results, key=lambda result: _place(result, order))
    groups = repeats(ordered)
    tables = [_table(title, ordered)]
    if any(len(group) > 1 for group in groups):
        tables.append(_repeats_table(groups))
    own = {job: [result for result in results if result["job"] == job] for job in order}
    lines = [f"{job}: {line}" for job in order for line in (*findings(own[job]), *notes(own[job]))]
    return plain_text(WIDTH, *tables, *lines)


def _place(result: Result, jobs: Sequence[str]) -> tuple[Any, ...]:
    """Networks of the same kind and budget stand below each other, whatever their job."""
    budget_ms = result["budget_ms"] or 0.0
    place = result["target"], ORDER.index(result["kind"]), budget_ms, name_without_seed(result)
    return *place, jobs.index(result["job"]), seed_of(result)


def _table(title: str, results: Sequence[Result]) -> Table:
    columns = [name for name in columns_of(results) if name not in LEFT_OUT]
    table = _job_table(title, [COLUMNS[name][0] for name in columns])
    for result in results:
        figures = [cell(name, value_of(result, name)) for name in columns]
        table.add_row(name_of(result, has_seed="seed" in columns), result["job"], *figures)
    return table


def _repeats_table(groups: Sequence[Sequence[Result]]) -> Table:
    headers = ["budget ms", "seeds", *(COLUMNS[name][0] for name in REPEATED)]
    table = _job_table("mean ± standard deviation over seeds", headers)
    for group in groups:
        figures = [mean_cell(name, [value_of(one, name) for one in group]) for name in REPEATED]
        words = [cell("budget_ms", group[0]["budget_ms"]), str(len(group)), *figures]
        table.add_row(name_of(group[0], has_seed=True), group[0]["job"], *words)
    return table


def _job_table(title: str, headers: Sequence[str]) -> Table:
    """With the job behind the network; only the job's name is broken where there is no room."""
    table = empty_table(title, ["job", *headers])
    for column in table.columns:
        column.no_wrap = True
    job = table.columns[1]
    job.justify, job.no_wrap, job.overflow = "left", False, "fold"
    table.collapse_padding, table.pad_edge = True, False
    return table
