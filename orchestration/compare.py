"""Results of a job side by side: the closing table, comparison files and pictures."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cluster.storage import Storage
from nas_core.calibration import MeasuredNetwork
from nas_core.latency import LatencyTable
from orchestration.budgets import is_within
from orchestration.cases import ORDER
from orchestration.draw import architecture_png

FORMAT = "comparison/1"
Result = dict[str, Any]
"""The content of a `result.json`."""

COLUMNS = {
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

FACTS = (
    *("job", "case", "kind", "target", "hardware", "stand_in", "budget"),
    *("strategy", "objective", "architecture_hash"),
)
COSTS = ("measured_spread", "expected_ms", "retrain_s", "search_gpu_hours", "retrain_gpu_hours")
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
    """A table of results of one hardware, what each case gained on the reference, and notes."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns = _columns(results)
    table = Table(
        title=results[0]["hardware"],
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=len(columns) == len(COLUMNS),  # or it would not fit 120 letters
    )
    table.add_column("network")
    for name in columns:
        table.add_column(COLUMNS[name][0], justify="right")
    for result in results:
        table.add_row(_name(result), *(_cell(name, result.get(name)) for name in columns))
    console = Console(file=io.StringIO(), width=160, color_system=None)  # logs are not 80 wide
    console.print(table)
    lines = [*_verdicts(results), *_notes(results)]
    console.print(*lines, sep="\n", soft_wrap=True, markup=False)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _columns(results: Sequence[Result]) -> list[str]:
    """Strides are of interest beside baselines, and where networks differ in them."""
    has_baseline = any(result["kind"] == "baseline" for result in results)
    strides = {result.get("total_stride") for result in results} - {None}
    is_shown = has_baseline or len(strides) > 1
    return [name for name in COLUMNS if name != "total_stride" or is_shown]


def _name(result: Result) -> str:
    return "reference (to beat)" if result["kind"] == "reference" else str(result["case"])


def _cell(name: str, value: float | None) -> str:
    _, form, factor = COLUMNS[name]
    return "-" if value is None else form.format(value * factor)


def _verdicts(results: Sequence[Result]) -> list[str]:
    references = [result for result in results if result["kind"] == "reference"]
    return [_verdict(r, ref) for ref in references for r in results if r["kind"] != "reference"]


def _verdict(result: Result, reference: Result) -> str:
    """`mobile-0.31ms takes 24 % less time than the reference, top-1 0.4 points lower`."""
    text = f"{result['case']} takes {_time(latency_ms(result) / latency_ms(reference))}"
    if result["measured_ms"] is None:
        text += " by the table"
    if result["top1"] is None or reference["top1"] is None:
        return text
    points = 100 * (result["top1"] - reference["top1"])
    return f"{text}, top-1 {abs(points):.1f} points {'higher' if points >= 0 else 'lower'}"


def _time(ratio: float) -> str:
    if ratio >= 2:
        return f"{ratio:.1f} times the time of the reference"
    percent = f"{100 * abs(1 - ratio):.0f} %"
    return f"{percent} {'less' if ratio <= 1 else 'more'} time than the reference"


def _notes(results: Sequence[Result]) -> list[str]:
    return [f"{result['case']}: {note}" for result in results for note in result.get("notes", [])]


def write_comparison(job: Storage, tables: Storage) -> None:
    """Write `comparison/`: the table as JSON and CSV, a picture of every network of sites.

    The reference network has none: all of its sites are equal.
    """
    results = read_results(job)
    rows = [{name: result.get(name) for name in (*FACTS, *FIGURES)} for result in results]
    job.write_json("comparison/comparison.json", {"format": FORMAT, "rows": rows})
    job.write_text("comparison/comparison.csv", _csv(rows))
    for result in results:
        if result["kind"] in ("search", "given"):
            _write_picture(job, tables, result)
    for target in dict.fromkeys(result["target"] for result in results):
        _write_calibration(job, tables, [one for one in results if one["target"] == target])


def _write_calibration(job: Storage, tables: Storage, results: Sequence[Result]) -> None:
    """Predicted against measured networks of a target, if its table was calibrated.

    Those of the job are marked: what it found, was given, and the baselines.
    """
    from orchestration.draw_calibration import calibration_png

    place = f"{results[0]['table_key']}.json"
    values = tables.read_json(place) if tables.exists(place) else {}
    if values.get("calibration") is None:
        return
    table = LatencyTable.from_dict(values)
    assert table.calibration is not None
    own = [one for one in results if one["kind"] != "reference" and one["measured_ms"]]
    others = (*table.calibration.others, *(_as_measured(one, table) for one in own))
    shown = replace(table, calibration=replace(table.calibration, others=others))
    job.write_bytes(f"comparison/{results[0]['target']}-latency.png", calibration_png(shown))


def _as_measured(result: Result, table: LatencyTable) -> MeasuredNetwork:
    known = result["table_ms"] is not None
    name = result["case"].removeprefix(f"{result['target']}-")
    if result["kind"] == "search":
        name = f"found for {result['budget_ms']:.4g} ms"
    return MeasuredNetwork(
        name=name,
        ops=None,
        parts_ms=(result["table_ms"] - table.offset_ms) / table.scale if known else None,
        measured_ms=result["measured_ms"],
        spread=result["measured_spread"] or 0.0,
    )


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FACTS, *FIGURES], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write_picture(job: Storage, tables: Storage, result: Result) -> None:
    key = f"comparison/{result['case']}.png"
    is_covered = result["table_ms"] is not None
    table = tables.read_json(f"{result['table_key']}.json") if is_covered else None
    job.write_bytes(key, architecture_png(result["architecture"], table, title=result["case"]))


def best_result(results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The highest top-1 of those that keep their budget; if none does, the one closest to it."""
    keeping = [result for result in results if keeps_budget(result)]
    if keeping:
        return max(keeping, key=lambda result: (result["top1"], -latency_ms(result)))
    return min(results, key=lambda result: latency_ms(result) / result["budget_ms"])


def keeps_budget(result: Mapping[str, Any]) -> bool:
    """Whether the latency is within the budget, give or take what a repeat differs by."""
    budget_ms: float = result["budget_ms"]
    return is_within(latency_ms(result), budget_ms)


def latency_ms(result: Mapping[str, Any]) -> float:
    """As measured; by the table on a target that is not measured."""
    measured = result["measured_ms"]
    return float(result["table_ms"] if measured is None else measured)
