"""The note on top of a job's run, in Markdown: the run's page is the report of the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.reports.findings import findings
from orchestration.reports.results import latency_ms
from orchestration.reports.table import COLUMNS, best_result, cell, display_name
from orchestration.reports.text import duration
from orchestration.state.result import Result, value_of

NOTE = "mlflow.note.content"
"""What a run's page shows as its description."""

SHOWN = ("budget_ms", "table_ms", "measured_ms", "top1", "params", "macs")


LONGEST = 7900
"""Letters: MLflow cuts a note after 8,000."""
LONGEST_LINK = 2000
ROOM = "\u00a0"
"""A space that no reader of Markdown takes away."""

STEPS = ((None, True), (None, False), (20, False), (8, False), (2, False))
"""How many rows of a device, and whether what they gained: the first that is not too long."""


def job_note(
    facts: Mapping[str, Any],
    results: Sequence[Result],
    compare: str,
    listed: str,
    *,
    has_report: bool = True,
) -> str:
    """Tables of what was found, what each network gained, and where to look further.

    Args:
        facts: `job.json`.
        results: of its finished cases.
        compare: address of the page that compares all cases.
        listed: that of the page that lists them, for where there are too many to be compared.
        has_report: whether its page is among the files.
    """
    link = f"**[Compare all networks]({compare})**."
    if len(compare) > LONGEST_LINK:
        link = f"**[All networks]({listed})**."
    if has_report:
        link += (
            " The whole report is the artifact `comparison/report.html`; the job file is there "
            "too, to do it again."
        )
    head = [f"**{facts['name']}**: {_sum_up(results)}{_spent(facts)}", "", link]
    head += [*_to_ship(facts, results), *_failures(facts)]
    for most, is_told in STEPS:
        text = "\n".join([*head, "", *_sections(results, most, is_told)])
        if len(text) <= LONGEST:
            break
    return text[:LONGEST]


def _to_ship(facts: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    """The best searched network of each target, and how to get it."""
    prefix, lines = facts.get("registered_prefix"), []
    for target in dict.fromkeys(result["target"] for result in results):
        found = [one for one in results if (one["target"], one["kind"]) == (target, "search")]
        trained = [one for one in found if one["top1"] is not None]
        if prefix and trained:
            best = best_result(trained)
            ms, top1 = cell("measured_ms", latency_ms(best)), cell("top1", best["top1"])
            lines.append(
                f"- To ship on **{best['hardware']}**: `{best['case']}`, {ms} ms, top-1 {top1} %, "
                f"`models:/{prefix}-{target}@best`"
            )
    return ["", *lines] if lines else []


def _failures(facts: Mapping[str, Any]) -> list[str]:
    failed: Mapping[str, str] = facts.get("failed", {})
    lines = [f"- **{name} failed**: {_escaped(reason)[:300]}" for name, reason in failed.items()]
    return ["", *lines[:8]] if lines else []


def _sections(results: Sequence[Result], most: int | None, is_told: bool) -> list[str]:
    lines = []
    for hardware in dict.fromkeys(result["hardware"] for result in results):
        own = [one for one in results if one["hardware"] == hardware]
        lines += _section(hardware, own[:most], is_told)
        if len(own[:most]) < len(own):
            lines += [f"{len(own) - len(own[:most])} more are in the report.", ""]
    return lines


def _section(hardware: str, results: Sequence[Result], is_told: bool) -> list[str]:
    """The networks of one device."""
    heads = ["network", *(COLUMNS[name][0] for name in SHOWN)]
    rows = [
        [display_name(one), *(cell(name, value_of(one, name)) for name in SHOWN)] for one in results
    ]
    rule = ["---", *("---:" for _ in SHOWN)]
    said = [f"- {_escaped(line)}" for line in findings(results)] if is_told else []
    table = [_row(heads), f"|{'|'.join(rule)}|", *map(_row, rows)]
    return [f"### {hardware}", "", *table, "", *said, ""]


def _row(cells: Sequence[str]) -> str:
    """One line of a table; the UI leaves no room between columns, so cells bring it along."""
    return f"| {' | '.join(f'{ROOM}{_escaped(cell)}{ROOM}' for cell in cells)} |"


def _escaped(text: str) -> str:
    """Without what would end a cell or a line."""
    return " ".join(text.split()).replace("|", "\\|")


def _sum_up(results: Sequence[Result]) -> str:
    found = sum(result["kind"] == "search" for result in results)
    others = len(results) - found
    targets = list(dict.fromkeys(result["target"] for result in results))
    networks = "1 network" if found == 1 else f"{found} networks"
    beside = f", {others} to compare with" if others else ""
    return f"{networks} searched for {' and '.join(targets) or 'no target'}{beside}."


def _spent(facts: Mapping[str, Any]) -> str:
    """What the runs of the job took, and how right the plan of the last one was."""
    runs: Sequence[Mapping[str, Any]] = facts.get("runs", ())
    if not runs:
        return ""
    text = f" It took {duration(sum(run['wall_s'] for run in runs))}"
    error = runs[-1].get("estimate_error")
    if error is None:
        return f"{text}."
    return f"{text}; its plan said {duration(runs[-1]['estimate_s'])} ({error:+.0%})."
