"""Description of a job's run in Markdown: a short report on top of the run's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.reports.findings import findings
from orchestration.reports.results import latency_ms
from orchestration.reports.table import COLUMNS, best_result, cell, display_name
from orchestration.reports.text import duration
from orchestration.state.result import Result, value_of

NOTE = "mlflow.note.content"
"""Tag that the UI shows as the description of a run."""

SHOWN = ("budget_ms", "table_ms", "measured_ms", "top1", "params", "macs")


LONGEST = 7900
"""Limit in characters: MLflow truncates a description after 8,000."""
LONGEST_LINK = 2000
ROOM = "\u00a0"
"""A space that Markdown does not collapse."""

STEPS = ((None, True), (None, False), (20, False), (8, False), (2, False))
"""Pairs (rows per device, whether with findings); the first that is short enough is used."""


def job_note(
    facts: Mapping[str, Any],
    results: Sequence[Result],
    compare: str,
    listed: str,
    *,
    has_report: bool = True,
) -> str:
    """Tables of results, findings about each network, and links.

    Args:
        facts: content of `job.json`.
        results: of the finished cases.
        compare: address of the page that compares all cases.
        listed: address of the page that lists them, used if there are too many to compare.
        has_report: whether the HTML report is among the artifacts.
    """
    link = f"**[Compare all networks]({compare})**."
    if len(compare) > LONGEST_LINK:
        link = f"**[All networks]({listed})**."
    if has_report:
        link += (
            " The full report is the artifact `comparison/report.html`; the job file is an "
            "artifact, too."
        )
    head = [f"**{facts['name']}**: {_sum_up(results)}{_spent(facts)}", "", link]
    head += [*_to_deploy(facts, results), *_failures(facts)]
    for most, has_findings in STEPS:
        text = "\n".join([*head, "", *_sections(results, most, has_findings)])
        if len(text) <= LONGEST:
            break
    return text[:LONGEST]


def _to_deploy(facts: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    """The best searched network of each target, with the URI of its model."""
    prefix, lines = facts.get("registered_prefix"), []
    for target in dict.fromkeys(result["target"] for result in results):
        searched = [
            result for result in results if (result["target"], result["kind"]) == (target, "search")
        ]
        trained = [result for result in searched if result["top1"] is not None]
        if prefix and trained:
            best = best_result(trained)
            ms, top1 = cell("measured_ms", latency_ms(best)), cell("top1", best["top1"])
            lines.append(
                f"- To deploy on **{best['hardware']}**: `{best['case']}`, {ms} ms, "
                f"top-1 {top1} %, `models:/{prefix}-{target}@best`"
            )
    return ["", *lines] if lines else []


def _failures(facts: Mapping[str, Any]) -> list[str]:
    failed: Mapping[str, str] = facts.get("failed", {})
    lines = [f"- **{name} failed**: {_escaped(reason)[:300]}" for name, reason in failed.items()]
    return ["", *lines[:8]] if lines else []


def _sections(results: Sequence[Result], most: int | None, has_findings: bool) -> list[str]:
    lines = []
    for hardware in dict.fromkeys(result["hardware"] for result in results):
        own = [result for result in results if result["hardware"] == hardware]
        lines += _section(hardware, own[:most], has_findings)
        if len(own[:most]) < len(own):
            lines += [f"{len(own) - len(own[:most])} more are in the report.", ""]
    return lines


def _section(hardware: str, results: Sequence[Result], has_findings: bool) -> list[str]:
    """Table and findings of one device."""
    heads = ["network", *(COLUMNS[name][0] for name in SHOWN)]
    rows = [
        [display_name(result), *(cell(name, value_of(result, name)) for name in SHOWN)]
        for result in results
    ]
    rule = ["---", *("---:" for _ in SHOWN)]
    sentences = [f"- {_escaped(line)}" for line in findings(results)] if has_findings else []
    table = [_row(heads), f"|{'|'.join(rule)}|", *map(_row, rows)]
    return [f"### {hardware}", "", *table, "", *sentences, ""]


def _row(cells: Sequence[str]) -> str:
    """One line of a table. Cells are padded, since the UI leaves no space between columns."""
    return f"| {' | '.join(f'{ROOM}{_escaped(cell)}{ROOM}' for cell in cells)} |"


def _escaped(text: str) -> str:
    """Text without line breaks, pipes escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def _sum_up(results: Sequence[Result]) -> str:
    searched = sum(result["kind"] == "search" for result in results)
    others = len(results) - searched
    targets = list(dict.fromkeys(result["target"] for result in results))
    networks = "1 network" if searched == 1 else f"{searched} networks"
    beside = f", {others} to compare with" if others else ""
    return f"{networks} searched for {' and '.join(targets) or 'no target'}{beside}."


def _spent(facts: Mapping[str, Any]) -> str:
    """Total time of the job's runs, and the error of the last plan's estimate."""
    runs: Sequence[Mapping[str, Any]] = facts.get("runs", ())
    if not runs:
        return ""
    text = f" It took {duration(sum(run['wall_s'] for run in runs))}"
    error = runs[-1].get("estimate_error")
    if error is None:
        return f"{text}."
    return f"{text}; the plan estimated {duration(runs[-1]['estimate_s'])} ({error:+.0%})."
