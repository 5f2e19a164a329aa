"""What a job is at, in words: lines for a terminal."""

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


def status_lines(status: JobStatus, name: str, place: str, now: float) -> list[str]:
    """Who owns a job, how far its cases are, and what is left.

    Args:
        status: of the job.
        name: of the job.
        place: its folder.
        now: seconds since 1970.
    """
    table = [] if not status.cases else ["", *_table(status, now), ""]
    reasons = [
        f"{case.name} {'failed' if case.state == 'failed' else 'stopped early'}: {case.reason}"
        for case in status.cases
        if case.reason
    ]
    head = [f"job      {name}, {place}", f"driver   {_driver(status, now)}"]
    if status.plan.unmeasured:
        head.append(f"tables   to be measured: {', '.join(status.plan.unmeasured)}")
    return [*head, *table, *reasons, *_sum(status, now)]


def _driver(status: JobStatus, now: float) -> str:
    held, plan = status.holder, status.plan
    again = "the same command goes on"
    if held is not None:
        return f"{_named(held)} {_life(held, now)}{'' if held.is_alive else f'; {again}'}"
    if plan.begun:
        return f"none; the run of {_minute(plan.begun)} was stopped; {again}"
    if plan.ended is None:
        return f"none; {again}"
    runs = plan.ended.get("runs") or []
    if not runs:
        return f"none; submitted {_minute(plan.ended.get('submitted', '?'))}, ended"
    began, took = _minute(runs[-1]["started"]), duration(runs[-1]["wall_s"])
    return f"none; the last run began {began} and ended after {took}"


def _named(held: Holder) -> str:
    return f"process {held.process} on host {held.host} since {_minute(held.since)}"


def _life(held: Holder, now: float) -> str:
    ago = f"{_ago(held.renewed, now)} ago"
    return f"is alive, heard of {ago}" if held.is_alive else f"is gone, last heard of {ago}"


def _minute(moment: str) -> str:
    """A moment of a file as a person here reads it; as it is where it is none."""
    try:
        return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return moment


def _ago(moment: float, now: float) -> str:
    seconds = max(0.0, now - moment)
    return duration(seconds) if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def _table(status: JobStatus, now: float) -> list[str]:
    """A row for each warm-up that is waited for, and for each case."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("network", no_wrap=True)
    table.add_column("state")
    for header in ("latency ms", "top-1 %", "last sign", "left"):
        table.add_column(header, justify="right", no_wrap=True)
    for case in (*status.warmups, *status.cases):
        table.add_row(*_row(case, status, now))
    return [line for line in plain_text(WIDTH, table).splitlines() if line]


def _row(case: CaseStatus, status: JobStatus, now: float) -> Iterator[str]:
    yield case.name
    yield case.words
    yield "-" if case.latency_ms is None else f"{case.latency_ms:.3f}"
    yield "-" if case.top1 is None else f"{100 * case.top1:.1f}"
    yield "-" if case.seen is None else f"{_ago(case.seen, now)} ago"
    yield _left_of(status.case_left(case)) if case.state == "begun" else "-"


def _left_of(left: Left) -> str:
    if left.is_all:
        return duration(left.seconds)
    return f"> {duration(left.seconds)}" if left.seconds else "-"


def _sum(status: JobStatus, now: float) -> Iterator[str]:
    """How many cases are where, the last sign of life, and how much is left."""
    if not status.cases:
        yield "no network is known yet"
        return
    counts = [(state, status.count(state)) for state in STATES]
    words = [f"{count} {state}" for state, count in counts if count]
    yield f"networks {len(status.cases)}: {', '.join(words)}"
    if status.count("done") + status.count("stopped early") == len(status.cases):
        return
    if status.seen is not None:
        yield f"written  last checkpoint {_ago(status.seen, now)} ago"
    left, word = status.left, "about" if status.left.is_all else "at least"
    about = f"{word} {duration(left.seconds)} of training"
    yield f"left     {about if left.seconds or left.is_all else 'cannot be told yet'}"
