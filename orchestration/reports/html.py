"""`comparison/report.html`: the report of a job as one self-contained page.

Holds the table, the figures, the plan against the actual runs, and how to reproduce the job. Opens
in a browser or in MLflow's artifact viewer, in light or dark mode.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from cluster.storage import Storage
from orchestration.config.storage_layout import (
    ACCURACY_PICTURE,
    COMPARISON,
    JOB_FILE,
    LATENCY_PICTURE,
    MATRIX_PICTURE,
    NETWORK_PICTURE,
    NETWORKS_PICTURE,
    REPORT_FILE,
    SEARCH_PICTURE,
    comparison_file,
)
from orchestration.reports.findings import findings
from orchestration.reports.table import COLUMNS, cell, display_name
from orchestration.reports.text import duration
from orchestration.state.result import Result, value_of

WHOLE = {
    ACCURACY_PICTURE: "Accuracy against latency; the line is the Pareto front.",
    rf"(.+-)?{NETWORKS_PICTURE}(-\d+)?.png": "The networks side by side, aligned by site.",
    MATRIX_PICTURE: "Every specialized network on every target.",
    f"(.+){LATENCY_PICTURE}": "{0}: predicted against measured latency.",
}
"""Captions of the figures of the whole job, by a regular expression of their file names."""
MOST_SEARCHES = 24
"""Searches with figures on the page (some 200 kB each). Figures of others are separate files."""

FACTS = {
    "target": "target",
    "kind": "kind",
    "hardware": "hardware",
    "strategy": "strategy",
    "objective": "objective",
    "space": "space",
    "architecture_hash": "architecture",
}
HIDDEN = ("seed", "total_stride")
"""Columns that are only shown if their values differ."""
RUN = {
    "started": "started",
    "wall_s": "time",
    "estimate_s": "estimated by the plan",
    "took_s": "time of planned work",
    "estimate_error": "difference",
    "measured_s": "measuring",
    "idle_share": "idle",
    "networks": "networks",
    "steps": "weight steps",
}
"""Fields of a run in `job.json`, and their column headers on the page."""


def write_report(
    job: Storage, results: Sequence[Result], facts: Mapping[str, Any] | None = None
) -> None:
    """Write the page from the files of the job. Its figures have to be drawn before."""
    facts = job.find_json(JOB_FILE) or {} if facts is None else facts
    name = str(facts.get("name") or (results[0]["job"] if results else "job"))
    parts = [
        _findings(results),
        _failed(facts.get("failed", {})),
        _table(results),
        _pictures(job, results),
        _runs(facts.get("runs", ())),
        _reproduction(facts),
    ]
    job.write_text(
        comparison_file(REPORT_FILE), page(name, "\n".join(part for part in parts if part))
    )


def _findings(results: Sequence[Result]) -> str:
    """Findings about each network."""
    lines = []
    for hardware in dict.fromkeys(result["hardware"] for result in results):
        lines += findings([result for result in results if result["hardware"] == hardware])
    return _list("Findings", lines)


def _failed(failed: Mapping[str, str]) -> str:
    return _list("Failures", [f"{name}: {reason}" for name, reason in failed.items()])


def _list(heading: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{heading}</h2><ul>{items}</ul>" if lines else ""


def _table(results: Sequence[Result]) -> str:
    """Table of all networks; a click on a header sorts by that column."""
    columns = [
        name
        for name in COLUMNS
        if name not in HIDDEN or len({value_of(result, name) for result in results}) > 1
    ]
    heads = ["network", *FACTS.values(), "budget", *(COLUMNS[name][0] for name in columns)]
    rows = [
        [
            _cell(display_name(item)),
            *(_cell(str(value_of(item, fact) or "-")) for fact in FACTS),
            _cell(str(item["budget"] or "-")),
            *(_cell(cell(name, value_of(item, name)), value_of(item, name)) for name in columns),
        ]
        for item in results
    ]
    head = "".join(f'<th><button type="button">{escape(text)}</button></th>' for text in heads)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<h2>All networks</h2><div class="wide">{table}</div>'


def _cell(text: str, value: float | None = None) -> str:
    """A table cell. Numbers carry their value, by which they are sorted."""
    if value is None:
        return f"<td>{escape(text)}</td>"
    return f'<td class="figure" data-value="{float(value)!r}">{escape(text)}</td>'


def _pictures(job: Storage, results: Sequence[Result]) -> str:
    """Figures of the whole job, then those of single searches, which are collapsed."""
    files = {path.removeprefix(comparison_file("")) for path in job.list(COMPARISON)}
    shown = [
        _figure(job, name, text.format(*match.groups()))
        for pattern, text in WHOLE.items()
        for name in sorted(files)
        if (match := re.fullmatch(pattern, name))
    ]
    searches = [result for result in results if f"{result['case']}{SEARCH_PICTURE}" in files]
    shown += [_search(job, str(result["case"]), files) for result in searches[:MOST_SEARCHES]]
    if len(searches) > MOST_SEARCHES:
        more = len(searches) - MOST_SEARCHES
        shown.append(f"<p>Figures of {more} more searches are files next to this page.</p>")
    return f"<h2>Figures</h2>{''.join(shown)}" if shown else ""


def _search(job: Storage, case: str, files: Iterable[str]) -> str:
    """The network and the course of a search."""
    names = {
        f"{case}{NETWORK_PICTURE}": "The network.",
        f"{case}{SEARCH_PICTURE}": "The course of the search.",
    }
    figures = [_figure(job, name, text) for name, text in names.items() if name in files]
    return f"<details><summary>{escape(case)}</summary>{''.join(figures)}</details>"


def _figure(job: Storage, name: str, text: str) -> str:
    data = base64.b64encode(job.read_bytes(comparison_file(name))).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(text)}">'
    return f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>"


def _runs(runs: Sequence[Mapping[str, Any]]) -> str:
    """Time of each run of the job, and what its plan had estimated."""
    if not runs:
        return ""
    head = "".join(f"<th>{name}</th>" for name in RUN.values())
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_run_text(name, run))}</td>' for name in RUN)}</tr>"
        for run in runs
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h2>Plan and actual runs</h2><div class="wide">{table}</div>'


def _run_text(name: str, run: Mapping[str, Any]) -> str:
    value = run.get(name)
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{count:,} {phase}" for phase, count in value.items())
    if name.endswith("_s"):
        return duration(value)
    if name == "estimate_error":
        return f"{value:+.0%}"
    return f"{value:.0%}" if name == "idle_share" else str(value)


def _reproduction(facts: Mapping[str, Any]) -> str:
    """How to reproduce the job: the commit, the job file, the hardware."""
    if not facts:
        return ""
    name, commit = str(facts["name"]), facts.get("git_commit")
    commands = [f"git checkout {commit}"] if commit else []
    commands += [f"proxyless run {shlex.quote(name + '.yaml')}"]
    ran_on = ", ".join(f"{key}: {value}" for key, value in facts.get("hardware", {}).items())
    lines = [
        "<h2>How to reproduce this job</h2>",
        f"<p>Save the job file below as <code>{escape(name)}.yaml</code>, then:</p>",
        f"<pre>{escape(chr(10).join(commands))}</pre>",
        f"<pre>{escape(str(facts.get('job_file') or ''))}</pre>",
        f"<p>The driver ran on {escape(ran_on)}.</p>" if ran_on else "",
        *_data(facts.get("plan", {}).get("data")),
    ]
    return "\n".join(line for line in lines if line)


def _data(data: Mapping[str, Any] | None) -> Iterator[str]:
    if data is not None:
        yield (
            f"<p>Images: {data['count']:,}, about {data['test_count']:,} of them for testing; "
            f"{len(data['classes'])} classes, {data['resolution']} pixels; fingerprint "
            f"<code>{escape(str(data['fingerprint']))}</code>.</p>"
        )


STYLE = """
:root { color-scheme: light dark;
  --ink: #111827; --page: #ffffff; --line: #d5d9de; --head: #f1f3f5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e7eb; --page: #16191d; --line: #3a4149; --head: #23282e; }
}
body { margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: left;
  white-space: nowrap; }
thead th { background: var(--head); }
td.figure { text-align: right; font-variant-numeric: tabular-nums; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid currentColor; }
th[aria-sort] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; border-radius: 4px; }
figcaption { font-size: 13px; } summary { cursor: pointer; padding: .3rem 0; }
pre { background: var(--head); padding: .7rem; overflow-x: auto; }
"""


SCRIPT = """
function key(row, column) {
  const cell = row.cells[column], value = cell.dataset.value;
  return value === undefined ? cell.textContent : Number(value);
}
function order(a, b, turn) {
  const isText = [a, b].map((value) => typeof value === "string");
  if (isText[0] && isText[1]) return turn * a.localeCompare(b, undefined, { numeric: true });
  return isText[0] || isText[1] ? isText[0] - isText[1] : turn * (a - b);  // unknown values last
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
    const rows = [...body.rows].sort((a, b) => order(key(a, column), key(b, column), turn));
    body.append(...rows);
  }));
}
"""


def page(title: str, body: str) -> str:
    """A complete HTML page.

    Args:
        title: plain text; escaped here.
        body: HTML.
    """
    name = escape(title)
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}</style>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><h1>{name}</h1>\n{body}\n'
        f"<script>{SCRIPT}</script></body></html>\n"
    )
