"""Live table of all cases of a job in a notebook."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from typing import Any

from orchestration.driver.background import repeating
from orchestration.reports.text import duration

Follow = Callable[[str, Mapping[str, Any]], None]
"""Called with the name of a case and each of its reports; see `progress.ProgressLines`."""

PAUSE_S = 0.5
"""Seconds between two updates of the table."""

HEADERS = ("network", "phase", "epoch", "top-1", "latency", "budget", "left")


@contextmanager
def live_table() -> Iterator[Follow]:
    """Context manager with a table below the notebook's cell, a row per network, updated in place.

    Outside a notebook reports are ignored.
    """
    if not is_notebook():
        yield lambda *_: None
        return
    table = LiveTable()
    with _shown(table):
        yield table


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class LiveTable:
    """Last report of each case as HTML. Thread-safe: notes arrive from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, Mapping[str, Any]] = {}
        self._notes: list[tuple[str, str]] = []

    def __call__(self, case: str, record: Mapping[str, Any]) -> None:
        """Record a report of a case."""
        with self._lock:
            if "note" in record:
                self._notes.append((case, str(record["note"])))
            else:
                self._records[record.get("network", case)] = dict(record)

    def html(self) -> str:
        """The table, and the notes below it."""
        with self._lock:
            rows = [_row("td", _cells(name, record)) for name, record in self._records.items()]
            notes = [f"<div>{escape(case)}: {escape(note)}</div>" for case, note in self._notes]
        return f"<table>{_row('th', HEADERS)}{''.join(rows)}</table>{''.join(notes)}"


@contextmanager
def _shown(table: LiveTable) -> Iterator[None]:
    """Context manager that keeps the displayed table up to date, including its final state."""
    display = importlib.import_module("IPython.display")
    handle = display.display(display.HTML(table.html()), display_id=True)
    shown = [""]

    def follow() -> None:
        if (now := table.html()) != shown[0]:
            handle.update(display.HTML(now))
            shown[0] = now

    with repeating(follow, PAUSE_S, "live table"):
        yield


def _cells(name: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        str(record["phase"]),
        f"{record['epoch'] + 1}/{record['epochs']}",
        _figure(record, "top1", lambda top1: f"{100 * top1:.1f} %"),
        _figure(record, "latency_ms", lambda ms: f"{ms:.4f} ms"),
        _figure(record, "budget_ms", lambda ms: f"{ms:.4f} ms"),
        _figure(record, "eta_s", duration),
    )


def _figure(record: Mapping[str, Any], name: str, words: Callable[[float], str]) -> str:
    value = record.get(name)
    return "-" if value is None else words(value)


def _row(tag: str, cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
