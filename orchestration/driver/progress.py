"""Progress output: one aligned line per epoch, network or note."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestration.reports.text import duration

Log = Callable[[str], None]
OnRecord = Callable[[str, Mapping[str, Any]], None]
"""Called with the name of a case and each of its reports."""


class ProgressLines:
    """Logs an aligned line for each report of a case."""

    def __init__(self, log: Log, named: bool) -> None:
        self._say, self._named = log, named

    def __call__(self, case: str, record: Mapping[str, Any]) -> None:
        """Log a report of a case."""
        if "note" in record:
            self._say(f"NOTE {case}: {record['note']}")
            return
        is_named = self._named or "network" in record
        name = f"{record.get('network', case)}  " if is_named else ""
        parts = FORMATS.get(record["phase"], _epoch)(record)
        parts += [f"{record['seconds']:5.1f} s", *_speed(record)]
        self._say("  ".join([name + parts[0], *parts[1:]]))


def _count(record: Mapping[str, Any]) -> str:
    return f"{record['phase']:<7} {record['epoch'] + 1:03d}/{record['epochs']:03d}"


def _epoch(record: Mapping[str, Any]) -> list[str]:
    parts = [
        _count(record),
        f"loss {record['loss']:.3f}",
        f"top-1 {100 * record['top1']:5.1f} %",
    ]
    if record.get("latency_ms") is not None:
        budget = f"(budget {record['budget_ms']:.4f})"
        parts.append(f"latency {record['latency_ms']:.4f} ms {budget}")
        parts.append(f"entropy {record['entropy']:.2f}")
    return parts


def _speed(record: Mapping[str, Any]) -> list[str]:
    """Throughput, shares of time, and remaining time of the stage."""
    if "images_per_s" not in record:
        return []
    data, talk = 100 * record["share_data"], 100 * record["share_communication"]
    return [
        f"{record['images_per_s']:,.0f} images/s",
        f"data {data:.0f} % compute {100 - data - talk:.0f} % communication {talk:.0f} %",
        f"{duration(record['eta_s'])} left",
    ]


def _ranked(record: Mapping[str, Any]) -> list[str]:
    """A network of the ranking: loss and top-1 in the supernet and when trained alone."""
    return [
        _count(record),
        f"supernet loss {record['supernet_loss']:.3f} top-1 {100 * record['supernet_top1']:5.1f} %",
        f"alone loss {record['loss']:.3f} top-1 {100 * record['top1']:5.1f} %",
    ]


def _trained(record: Mapping[str, Any]) -> list[str]:
    """A random network that was trained alone."""
    return [
        _count(record),
        f"loss {record['loss']:.3f}",
        f"top-1 {100 * record['top1']:5.1f} %",
        f"latency {record['latency_ms']:.4f} ms (budget {record['budget_ms']:.4f})",
    ]


FORMATS = {"ranking": _ranked, "random": _trained}
"""Format of a line by phase; other phases report epochs."""


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Context manager with a progress bar, a function of (done, total); no-op if not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    console = Console(stderr=True)
    columns = ("measuring", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("measuring", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def case_bars() -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Context manager with a progress bar for every case and stage, below the lines.

    Yields a function that is called with each report of a case; a no-op without a terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]} left"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[tuple[str, bool], Any] = {}

        def show(case: str, record: Mapping[str, Any]) -> None:
            if "eta_s" not in record:
                return
            network, phase = record.get("network", case), record["phase"]
            key, left = (network, phase == "retrain"), duration(record["eta_s"])
            done, name = record["epoch"] + 1, f"{network} {phase}"
            if key not in tasks:
                tasks[key] = bars.add_task(name, total=record["epochs"], left=left)
            bars.update(tasks[key], completed=done, left=left, description=name)

        yield show
