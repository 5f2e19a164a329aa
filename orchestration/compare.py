"""Results of a job side by side: the closing table, comparison files and pictures."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cluster.storage import Storage
from orchestration.budgets import is_within
from orchestration.cases import ORDER
from orchestration.result_values import (
    Result,
    latency_ms,
    mean,
    name_without_seed,
    repeats,
    seed_of,
    spread,
)
from orchestration.verdicts import random_networks, verdicts

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = "comparison/1"

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
"""Header with its unit, format and factor of every figure in the table."""

REPEATED = ("table_ms", "measured_ms", "top1")
"""Figures whose mean and spread over several seeds are shown."""

NAMED_BY_KIND = ("reference", "random")

WIDE = 9
"""Columns of figures with which a table fits 120 letters only with less padding."""

FACTS = (
    *("job", "case", "kind", "target", "hardware", "stand_in", "budget"),
    *("strategy", "objective", "architecture_hash"),
)
COSTS = (
    *("measured_spread", "expected_ms", "warmup_s", "retrain_s"),
    *("search_gpu_hours", "retrain_gpu_hours"),
)
FIGURES = (*COLUMNS, *COSTS)


def read_results(job: Storage) -> list[Result]:
    """The results in a job's folder: per target the reference, searches by budget, the others."""
    keys = [key for key in job.list("cases") if re.fullmatch(r"cases/[^/]+/result\.json", key)]
    return sorted((job.read_json(key) for key in keys), key=_order)


def _order(result: Result) -> tuple[str, int, float, str]:
    kind, budget_ms = ORDER.index(result["kind"]), result["budget_ms"]
    return result["target"], kind, 0.0 if budget_ms is None else budget_ms, result["case"]


def print_comparison(results: Sequence[Result]) -> None:
    """The closing table, one for each hardware: latencies of two devices do not compare."""
    for hardware in dict.fromkeys(result["hardware"] for result in results):
        print(comparison_text([r for r in results if r["hardware"] == hardware]))


def comparison_text(results: Sequence[Result]) -> str:
    """A table of results of one hardware, their mean and spread where there are several seeds, what
    each case gained on the reference and on its controls, and notes."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=160, color_system=None)  # logs are not 80 wide
    console.print(_table(results))
    groups = repeats(results)
    if any(len(group) > 1 for group in groups):
        console.print(_repeats_table(groups))
    lines = [*verdicts(results), *_notes(results)]
    console.print(*lines, sep="\n", soft_wrap=True, markup=False)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _table(results: Sequence[Result]) -> Table:
    """A row for each network."""
    columns = _columns(results)
    headers = [COLUMNS[name][0] for name in columns]
    table = _empty_table(results[0]["hardware"], headers)
    table.collapse_padding = len(columns) >= WIDE
    table.pad_edge = len(columns) < len(COLUMNS)
    names = _plain_name if "seed" in columns else display_name
    for result in results:
        table.add_row(names(result), *(cell(name, result.get(name)) for name in columns))
    return table


def _repeats_table(groups: Sequence[Sequence[Result]]) -> Table:
    """A row for each network, whatever its seed."""
    title = "mean ± standard deviation over seeds"
    headers = ["budget ms", "seeds", *(COLUMNS[name][0] for name in REPEATED)]
    table = _empty_table(title, headers)
    for group in groups:
        figures = [_mean_cell(name, [one.get(name) for one in group]) for name in REPEATED]
        budget = cell("budget_ms", group[0]["budget_ms"])
        table.add_row(_plain_name(group[0]), budget, str(len(group)), *figures)
    return table


def _empty_table(title: str, headers: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("network")
    for header in headers:
        table.add_column(header, justify="right")
    return table


def _columns(results: Sequence[Result]) -> list[str]:
    """Strides are of interest beside baselines, and where networks differ in them; seeds where
    there are several."""
    has_baseline = any(result["kind"] == "baseline" for result in results)
    strides = {result.get("total_stride") for result in results} - {None}
    seeds = {seed_of(result) for result in results}
    is_shown = {"total_stride": has_baseline or len(strides) > 1, "seed": len(seeds) > 1}
    return [name for name in COLUMNS if is_shown.get(name, True)]


def display_name(result: Result) -> str:
    """What a network is called in a table."""
    return _plain_name(result) if result["kind"] in NAMED_BY_KIND else str(result["case"])


def _plain_name(result: Result) -> str:
    """The name of a network, whatever its seed."""
    if result["kind"] == "random":
        count = random_networks(result)
        return "random" if count is None else f"random (best of {count})"
    is_reference = result["kind"] == "reference"
    return "reference (to beat)" if is_reference else name_without_seed(result)


def cell(name: str, value: float | None) -> str:
    """A figure of `COLUMNS` in words; a dash where it is not known."""
    _, form, factor = COLUMNS[name]
    return "-" if value is None else form.format(value * factor)


def _mean_cell(name: str, values: Sequence[float | None]) -> str:
    deviation = spread(values)
    text = cell(name, mean(values))
    return text if deviation is None else f"{text} ± {cell(name, deviation)}"


def _notes(results: Sequence[Result]) -> list[str]:
    return [f"{result['case']}: {note}" for result in results for note in result.get("notes", [])]


def write_comparison(job: Storage, tables: Storage) -> None:
    """Write `comparison/`: the table as JSON and CSV, pictures, and all of it on one page."""
    from orchestration.pictures import write_pictures
    from orchestration.report import write_report

    results = read_results(job)
    rows = [{name: result.get(name) for name in (*FACTS, *FIGURES)} for result in results]
    job.write_json("comparison/comparison.json", {"format": FORMAT, "rows": rows})
    job.write_text("comparison/comparison.csv", _csv(rows))
    write_pictures(job, tables, results)
    write_report(job, results)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FACTS, *FIGURES], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def best_result(results: Sequence[Result]) -> Result:
    """The highest top-1 of those that keep their budget; if none does, the one closest to it."""
    keeping = [result for result in results if keeps_budget(result)]
    if keeping:
        return max(keeping, key=lambda result: (result["top1"], -latency_ms(result)))
    return min(results, key=lambda result: latency_ms(result) / result["budget_ms"])


def keeps_budget(result: Result) -> bool:
    """Whether the latency is within the budget, give or take what a repeat differs by."""
    budget_ms: float = result["budget_ms"]
    return is_within(latency_ms(result), budget_ms)
