"""`proxyless show`: draw a network in the terminal, with latencies from a stored table."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cluster.storage import HOME, Storage, StorageError
from nas_core.latency import LatencyTable
from nas_core.space import SPACES, SearchSpace
from orchestration.cli.named_network import NamedNetwork
from orchestration.config.loading import SpecError
from orchestration.config.space import SpaceSettings
from orchestration.config.storage_layout import TABLES, is_table_name, table_file
from orchestration.latency.device import identity
from orchestration.latency.table_store import SHIPPED
from orchestration.reports.figures.network import KERNEL_COLOURS, architecture_text, kernel_of
from orchestration.state.result import Result

if TYPE_CHECKING:
    from rich.text import Text

WIDTH = 120


@dataclass(frozen=True)
class StoredTable:
    """A latency table, and when it was measured or stored."""

    table: LatencyTable
    moment: str
    """ISO 8601, UTC."""


def shown_lines(network: NamedNetwork, target: str | None, storage: str | None) -> list[str]:
    """A drawing of a network, in lines of at most 120 characters.

    Args:
        network: the network to show.
        target: use the newest stored table of this target that has all ops of the space. None: use
            the table that the network's result names, if it is in storage.
        storage: storage that holds the tables. None: that of the network's case, else
            `~/proxyless`.

    Raises:
        SpecError: there is no such table; the message says how to measure it.
    """
    root = Storage(storage or network.storage or HOME)
    table = _own_table(network, root) if target is None else _table_of(target, network, root)
    values = None if table is None else table.to_dict()
    text = architecture_text(network.architecture.to_dict(), values).splitlines()
    head = [*_head(network), *_about(table), *_missing(network, table, root, target)]
    return [*(part for line in head for part in _wrapped(line)), "", *_fitting(text)]


def _own_table(network: NamedNetwork, root: Storage) -> LatencyTable | None:
    """The table that the result of the network names."""
    key = network.result and network.result.get("table_key")
    if not key or not root.exists(table_file(key)):
        return None
    table = _read(root, table_file(key))
    return table if table is not None and _covers(table, network.architecture.space) else None


def _table_of(target: str, network: NamedNetwork, root: Storage) -> LatencyTable:
    """The newest table of a target that has all ops of the space."""
    space = network.architecture.space
    if target in SHIPPED:
        try:
            return SHIPPED[target](space)
        except ValueError as error:
            raise SpecError(f"--target {target}: {error}") from None
    covering = [stored for stored in _tables(root) if _covers(stored.table, space)]
    candidates = [stored for stored in covering if stored.table.target == target]
    if candidates:
        return max(candidates, key=lambda stored: stored.moment).table
    targets = sorted({stored.table.target for stored in covering})
    raise SpecError(_no_table(target, space, root, targets))


def _no_table(target: str, space: SearchSpace, root: Storage, others: list[str]) -> str:
    there = f"there are tables of {', '.join(others)}; " if others else ""
    command = measure_command(target, space, root)
    way_out = "a job with that space measures one" if command is None else f"measure it: {command}"
    images = f"{space.in_channels}x{space.resolution}x{space.resolution}, {space.classes} classes"
    return (
        f"--target {target}: no latency table of it in {root.where(TABLES)} has all ops of "
        f"'{space.name}' ({images}); {there}{way_out}"
    )


def measure_command(target: str, space: SearchSpace, root: Storage) -> str | None:
    """Command that measures a table of a space; None if no options describe the space."""
    settings = _settings_of(space)
    if settings is None:
        return None
    own = {f"space.{name}": value for name, value in settings.items() if name != "name"}
    usual = {"resolution": 224, "channels": 3, "classes": 1000}
    images = {
        "resolution": space.resolution,
        "channels": space.in_channels,
        "classes": space.classes,
    }
    own |= {name: value for name, value in images.items() if value != usual[name]}
    args = ["proxyless", "measure", "--target", target, "--space", settings["name"]]
    args += [arg for name, value in own.items() for arg in ("--set", f"{name}={value}")]
    if root.uri != Storage(HOME).uri:
        args += ["--storage", root.uri]
    return shlex.join(args)


def _settings_of(space: SearchSpace) -> dict[str, Any] | None:
    """Settings of the `space:` section that build exactly this space; None if there are none."""
    known = "|".join(SPACES)
    named = re.fullmatch(rf"({known})(?:_first(\d+))?(?:_([\d.]+))?", space.name)
    if named is None:
        return None
    settings: dict[str, Any] = {"name": named[1]}
    settings |= {"first_stage": int(named[2])} if named[2] else {}
    settings |= {"width": float(named[3])} if named[3] else {}
    try:
        same = SpaceSettings(**settings).build(space.classes, space.in_channels, space.resolution)
    except ValueError:
        return None
    return settings if same == space else None


def _tables(root: Storage) -> Iterator[StoredTable]:
    """Tables in storage that can be read."""
    for name in filter(is_table_name, root.sub(TABLES).list()):
        path = f"{TABLES}/{name}"
        table = _read(root, path)
        if table is not None:
            stored_s = root.modified(path) or 0.0
            moment = table.date or datetime.fromtimestamp(stored_s, UTC).isoformat(
                timespec="seconds"
            )
            yield StoredTable(table, moment)


def _read(root: Storage, path: str) -> LatencyTable | None:
    """A table; None if this version cannot read it."""
    try:
        return LatencyTable.from_dict(root.read_json(path))
    except (StorageError, ValueError):
        return None


def _covers(table: LatencyTable, space: SearchSpace) -> bool:
    """Whether a table has a row for every part of every network of the space."""
    try:
        table.costs_ms(space)
        table.fixed_ms(space)
    except ValueError:
        return False
    return True


def _head(network: NamedNetwork) -> Iterator[str]:
    space, result = network.architecture.space, network.result
    images = f"{space.in_channels}x{space.resolution}x{space.resolution}"
    about = f"{len(space.sites)} sites, images of {images}, {space.classes} classes"
    yield f"network  {network.name}: {space.name}, {about}"
    if result is not None:
        yield f"found    {', '.join(_result_facts(result))}"


def _result_facts(result: Result) -> Iterator[str]:
    """Facts from the result of a network."""
    if (budget_ms := result.get("budget_ms")) is not None:
        yield f"budget {budget_ms:.3f} ms"
    measured_ms = result.get("measured_ms")
    words = "for" if measured_ms is None else f"measured {measured_ms:.3f} ms on"
    yield f"{words} {result['hardware']}"
    if (top1 := result.get("top1")) is not None:
        yield f"top-1 {100 * top1:.1f} %"
    yield f"{result['params'] / 1e3:,.1f} k params"
    yield f"{result['macs'] / 1e6:,.1f} M MACs"


def _about(table: LatencyTable | None) -> Iterator[str]:
    """The device on which the latencies were measured."""
    if table is None:
        return
    device = ", ".join(str(value) for value in identity(table.device).values())
    moment = f", measured {table.date[:16]}" if table.date else ""
    yield f"table    {table.hardware}{moment}{f' on {device}' if device else ''}"


def _missing(
    network: NamedNetwork, table: LatencyTable | None, root: Storage, target: str | None
) -> Iterator[str]:
    """Why there are no latencies, if the result names a table."""
    key = network.result and network.result.get("table_key")
    if table is None and target is None and key:
        path = table_file(key)
        reason = "has not all ops of this space" if root.exists(path) else "is not there"
        named = f"{root.where(path)}, which the result names, {reason}"
        yield f"table    none: {named}; --target names another"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False)


def _fitting(lines: list[str]) -> Iterator[str]:
    """Truncate bars to WIDTH: offsets can make one longer than the total."""
    *sites, last = lines
    yield from (line[:WIDTH] for line in sites)
    yield from textwrap.wrap(last, WIDTH, subsequent_indent=" " * 11, break_on_hyphens=False)


def coloured(line: str) -> Text:
    """A line for the terminal, with the op and its bar in the colour of the kernel size."""
    from rich.text import Text

    text, fields = Text(line), line.split()
    op = fields[1] if len(fields) > 1 else ""
    kernel = kernel_of(op)
    if kernel in KERNEL_COLOURS:
        text.highlight_regex(rf"{re.escape(op)}|█+", style=KERNEL_COLOURS[kernel])
    elif op == "skip":
        text.stylize("dim")
    elif fields[:1] == ["site"]:
        text.stylize("bold")
    return text


def paint(lines: list[str], file: Any = None) -> None:
    """Print lines, in colour if the output is a terminal."""
    from rich.console import Console

    console = Console(file=file, highlight=False, soft_wrap=True)
    for line in lines:
        console.print(coloured(line))
