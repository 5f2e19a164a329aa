"""Status of a job as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cluster.lease import Holder
from orchestration.reports.status import CaseStatus, JobStatus, Left, State
from orchestration.reports.text import duration, plain_text

WIDTH = 120
STATES: tuple[State, ...] = (
    *("done", "begun", "not begun", "to do again", "failed", "stopped early"),
)


def status_lines(status: JobStatus, name: str, folder: str, now: float) -> list[str]:
    """Lines with the owner of a job, the progress of its cases, and the remaining time.

    Args:
        status: of the job.
        name: of the job.
        folder: of the job, as a path or URI.
        now: seconds since 1970.
    """
    table = [] if not status.cases else ["", *_table(status, now), ""]
    reasons = [
        f"{case.name} {'failed' if case.state == 'failed' else 'stopped early'}: {case.reason}"
        for case in status.cases
        if case.reason
    ]
    head = [f"job      {name}, {folder}", f"driver   {_driver(status, now)}"]
    if status.plan.unmeasured:
        head.append(f"tables   to be measured: {', '.join(status.plan.unmeasured)}")
    return [*head, *table, *reasons, *_sum(status, now)]


def _driver(status: JobStatus, now: float) -> str:
    held, plan = status.holder, status.plan
    hint = "the same command goes on"
    if held is not None:
        return f"{_process(held)} {_life(held, now)}{'' if held.is_alive else f'; {hint}'}"
    if plan.begun:
        return f"none; the run of {_minute(plan.begun)} was stopped; {hint}"
    if plan.ended is None:
        return f"none; {hint}"
    runs = plan.ended.get("runs") or []
    if not runs:
        return f"none; submitted {_minute(plan.ended.get('submitted', '?'))}, ended"
    began, took = _minute(runs[-1]["started"]), duration(runs[-1]["wall_s"])
    return f"none; the last run began {began} and ended after {took}"


def _process(held: Holder) -> str:
    return f"process {held.process} on host {held.host} since {_minute(held.since)}"


def _life(held: Holder, now: float) -> str:
    ago = f"{_ago(held.renewed, now)} ago"
    return f"is alive, last heartbeat {ago}" if held.is_alive else f"is gone, last heartbeat {ago}"


def _minute(moment: str) -> str:
    """A timestamp of a file in local time, to the minute; unchanged if it is not a timestamp."""
    try:
        return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return moment


def _ago(moment: float, now: float) -> str:
    seconds = max(0.0, now - moment)
    return duration(seconds) if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def _table(status: JobStatus, now: float) -> list[str]:
    """Table with a row for each warm-up that cases wait for, and for each case."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("network", no_wrap=True)
    table.add_column("state")
    for header in ("latency ms", "top-1 %", "checkpoint", "left"):
        table.add_column(header, justify="right", no_wrap=True)
    for case in (*status.warmups, *status.cases):
        table.add_row(*_row(case, status, now))
    return [line for line in plain_text(WIDTH, table).splitlines() if line]


def _row(case: CaseStatus, status: JobStatus, now: float) -> Iterator[str]:
    yield case.name
    yield case.text
    yield "-" if case.latency_ms is None else f"{case.latency_ms:.3f}"
    yield "-" if case.top1 is None else f"{100 * case.top1:.1f}"
    yield "-" if case.last_checkpoint is None else f"{_ago(case.last_checkpoint, now)} ago"
    yield _left_of(status.case_left(case)) if case.state == "begun" else "-"


def _left_of(left: Left) -> str:
    if left.is_all:
        return duration(left.seconds)
    return f"> {duration(left.seconds)}" if left.seconds else "-"


def _sum(status: JobStatus, now: float) -> Iterator[str]:
    """Number of cases by state, age of the last checkpoint, and remaining time."""
    if not status.cases:
        yield "no network is planned yet"
        return
    counts = [(state, status.count(state)) for state in STATES]
    counted = [f"{count} {state}" for state, count in counts if count]
    yield f"networks {len(status.cases)}: {', '.join(counted)}"
    if status.count("done") + status.count("stopped early") == len(status.cases):
        return
    if status.last_checkpoint is not None:
        yield f"written  last checkpoint {_ago(status.last_checkpoint, now)} ago"
    left, bound = status.left, "about" if status.left.is_all else "at least"
    time = f"{bound} {duration(left.seconds)} of training"
    yield f"left     {time if left.seconds or left.is_all else 'not known yet'}"
