"""Latency tables of a job: from storage, shipped with the project, or from a file of the user.

Needs no torch, so that plans are made quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cluster.hardware import Target
from cluster.storage import Storage
from nas_core.latency import LatencyTable, is_noisy
from nas_core.space import SearchSpace
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import table_file
from orchestration.latency.table_files import read_table


def _pixel1(space: SearchSpace) -> LatencyTable:
    from nas_core.published.pixel1 import table

    return table(space)


SHIPPED: dict[str, Callable[[SearchSpace], LatencyTable]] = {"pixel1": _pixel1}
"""Functions that build the shipped tables, by name of the target."""


def shipped_table(target: Target, space: SearchSpace) -> LatencyTable | None:
    """Table of a target that is not measured; None for measured targets.

    Raises:
        SpecError: the table does not cover the space.
    """
    if target.is_measured:
        return None
    try:
        if target.table:
            return read_table(Path(target.table), space, target)
        return SHIPPED[target.name](space)
    except ValueError as error:
        raise SpecError(f"target '{target.name}': {error}") from None


def stored_table(storage: Storage, key: str, *, accept_noisy: bool = True) -> LatencyTable | None:
    """Read a latency table from storage; None if there is none.

    Args:
        storage: storage of the job.
        key: key of the table.
        accept_noisy: whether to return a noisy table.

    Raises:
        SpecError: the table exists but cannot be read.
    """
    path = table_file(key)
    values = storage.find_json(path)
    if values is None:
        return None
    try:
        table = LatencyTable.from_dict(values)
    except ValueError as error:
        raise SpecError(f"{storage.where(path)}: {error}; remove it to measure again") from None
    return table if accept_noisy or not is_noisy(table.rows) else None


def store_table(storage: Storage, key: str, table: LatencyTable) -> None:
    """Write a table to storage."""
    storage.write_json(table_file(key), table.to_dict())
