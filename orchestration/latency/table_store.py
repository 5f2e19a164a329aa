"""Latency tables of a job: measured and kept, shipped, or from a file of the user's.

Only what needs no torch, so that a plan is made quickly.
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
"""How to get the table of a target that is not measured, by its name."""


def shipped_table(target: Target, space: SearchSpace) -> LatencyTable | None:
    """The table of a target that is not measured; None for one that is.

    Raises:
        SpecError: it does not cover the space.
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
    """The latency table that is in storage, or None.

    Args:
        storage: a job's.
        key: of the table.
        accept_noisy: whether one counts that was kept although it is noisy.

    Raises:
        SpecError: it is there but cannot be read.
    """
    place = table_file(key)
    values = storage.find_json(place)
    if values is None:
        return None
    try:
        table = LatencyTable.from_dict(values)
    except ValueError as error:
        raise SpecError(f"{storage.where(place)}: {error}; remove it to measure again") from None
    return table if accept_noisy or not is_noisy(table.rows) else None


def store_table(storage: Storage, key: str, table: LatencyTable) -> None:
    """Keep a table, where records and pictures look for it."""
    storage.write_json(table_file(key), table.to_dict())
