"""Results of a job as text: the closing table, mean and spread over seeds, findings and notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.storage import Storage
from orchestration.config.storage_layout import JOB_FILE
from orchestration.latency.tolerance import is_within
from orchestration.planning.case import ORDER
from orchestration.reports.findings import findings, random_networks
from orchestration.reports.results import (
    latency_ms,
    mean,
    name_without_seed,
    needed_budget_ms,
    repeats,
    seed_of,
    spread,
)
from orchestration.reports.row_files import KINDS
from orchestration.reports.text import plain_text
from orchestration.state.result import Result, Scored, value_of
from orchestration.state.snapshot import read_snapshot

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = {
    "seed": ("seed", "{:.0f}", 1.0),
    "budget_ms": ("budget ms", "{:.3f}", 1.0),
    "table_ms": ("table ms", "{:.3f}", 1.0),
    "measured_ms": ("measured ms", "{:.3f}", 1.0),
    "top1": ("top-1 %", "{:.1f}", 100.0),
    "top5": ("top-5 %", "{:.1f}", 100.0),
    "params": ("params k", "{:,.1f}", 1e-3),
    "macs": ("MACs M", "{:,.1f}", 1e-6),
    "total_stride": ("stride", "{:.0f}", 1.0),
    "search_s": ("search s", "{:.0f}", 1.0),
}
"""Header with unit, format and factor of every column with numbers."""

REPEATED = ("table_ms", "measured_ms", "top1")
"""Columns shown with mean and spread over several seeds."""

NAMED_BY_KIND = ("reference", "random")

WIDTH = 160
"""Width of the table in characters; logs are wider than 80."""
WIDE = 9
"""Number of columns from which on padding is reduced, so that a table fits 120 characters."""


def read_results(job: Storage) -> list[Result]:
    """Read the results of a job: per target the reference, searches by budget, the others.

    Results of earlier settings are left out if `job.json` lists the cases.
    """
    return ordered_results(read_snapshot(job).results.values(), job.find_json(JOB_FILE) or {})


def ordered_results(found: Iterable[Result], facts: Mapping[str, Any]) -> list[Result]:
    """The results of a job in the order of tables, without those of earlier settings.

    Args:
        found: all results in its folder.
        facts: the content of `job.json`, if there is one.
    """
    asked = {case["key"] for case in facts.get("plan", {}).get("cases", ())}
    return sorted((item for item in found if not asked or item["key"] in asked), key=_order)


def _order(result: Result) -> tuple[str, int, float, str]:
    kind, budget_ms = ORDER.index(result["kind"]), result["budget_ms"]
    return result["target"], kind, 0.0 if budget_ms is None else budget_ms, result["case"]


def print_comparison(results: Sequence[Result]) -> None:
    """Print the closing table, one per hardware, since latencies of devices are not comparable."""
    for hardware in dict.fromkeys(result["hardware"] for result in results):
        print(comparison_text([r for r in results if r["hardware"] == hardware]))


def comparison_text(results: Sequence[Result]) -> str:
    """Results of one hardware: the table, mean and spread over several seeds, findings, notes."""
    groups = repeats(results)
    tables = [_table(results)]
    if any(len(group) > 1 for group in groups):
        tables.append(_repeats_table(groups))
    return plain_text(WIDTH, *tables, *findings(results), *notes(results))


def _table(results: Sequence[Result]) -> Table:
    """Table with a row for each network."""
    columns = columns_of(results)
    headers = [COLUMNS[name][0] for name in columns]
    table = empty_table(results[0]["hardware"], headers)
    table.collapse_padding = len(columns) >= WIDE
    table.pad_edge = len(columns) < len(COLUMNS)
    has_seed = "seed" in columns
    for result in results:
        called = name_of(result, has_seed=has_seed)
        table.add_row(called, *(cell(name, value_of(result, name)) for name in columns))
    return table


def _repeats_table(groups: Sequence[Sequence[Result]]) -> Table:
    """Table with a row for each network, as the mean over its seeds."""
    title = "mean ± standard deviation over seeds"
    headers = ["budget ms", "seeds", *(COLUMNS[name][0] for name in REPEATED)]
    table = empty_table(title, headers)
    for group in groups:
        figures = [mean_cell(name, [value_of(item, name) for item in group]) for name in REPEATED]
        budget = cell("budget_ms", group[0]["budget_ms"])
        table.add_row(_plain_name(group[0]), budget, str(len(group)), *figures)
    return table


def empty_table(title: str, headers: Sequence[str]) -> Table:
    """An empty table with a column for the network and right-aligned columns for `headers`."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("network")
    for header in headers:
        table.add_column(header, justify="right")
    return table


def columns_of(results: Sequence[Result]) -> list[str]:
    """Columns to show: strides only with baselines or if they differ, seeds only if they differ."""
    has_baseline = any(result["kind"] == "baseline" for result in results)
    strides = {result.get("total_stride") for result in results} - {None}
    seeds = {seed_of(result) for result in results}
    is_shown = {"total_stride": has_baseline or len(strides) > 1, "seed": len(seeds) > 1}
    return [name for name in COLUMNS if is_shown.get(name, True)]


def name_of(result: Result, *, has_seed: bool) -> str:
    """The name of a network in a table; includes the seed unless the table has a column for it."""
    return _plain_name(result) if has_seed else display_name(result)


def display_name(result: Result) -> str:
    """The name of a network in a table without a seed column."""
    return _plain_name(result) if result["kind"] in NAMED_BY_KIND else str(result["case"])


def _plain_name(result: Result) -> str:
    """The name of a network without its seed."""
    if result["kind"] == "random":
        count = random_networks(result)
        return "random" if count is None else f"random (best of {count})"
    is_reference = result["kind"] == "reference"
    return "reference (to beat)" if is_reference else name_without_seed(result)


def cell(name: str, value: float | None) -> str:
    """A value of a column of `COLUMNS` as text; a dash if it is not known."""
    _, form, factor = COLUMNS[name]
    return "-" if value is None else form.format(value * factor)


def mean_cell(name: str, values: Sequence[float | None]) -> str:
    """Mean and spread of a column of `COLUMNS` as text."""
    deviation = spread(values)
    text = cell(name, mean(values))
    return text if deviation is None else f"{text} ± {cell(name, deviation)}"


def notes(results: Sequence[Result]) -> list[str]:
    """Notes of results, each prefixed with the name of its case."""
    return [f"{result['case']}: {note}" for result in results for note in result.get("notes", [])]


def row_of(result: Result) -> dict[str, Any]:
    """The row of a network in comparison files."""
    return {name: value_of(result, name) for name in KINDS}


Network = TypeVar("Network", bound=Scored)


def best_result(results: Sequence[Network]) -> Network:
    """The result of highest top-1 within its budget; if none is, the one closest to its budget."""
    keeping = [result for result in results if keeps_budget(result)]
    if keeping:
        return max(keeping, key=lambda result: (result["top1"] or 0.0, -latency_ms(result)))
    return min(results, key=lambda result: latency_ms(result) / needed_budget_ms(result))


def keeps_budget(result: Scored) -> bool:
    """Whether the latency is within the budget, up to the tolerance of measurements."""
    return is_within(latency_ms(result), needed_budget_ms(result))
