"""How far a stage is, as the folder of its checkpoints tells anybody; no torch in here.

The layout of such a folder is in `checkpoint.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.storage import Storage, StorageError
from orchestration.config.storage_layout import CHECKPOINT_STATE_FILE, STAGE_END_FILE, rank_file


@dataclass(frozen=True)
class StageProgress:
    """What the newest complete checkpoint of a stage says."""

    epoch: int
    """Finished epochs; those of the warm-up counted, where the stage began with one."""
    step: int
    """Steps of the epoch after them."""
    written: float
    """When, seconds since 1970."""
    history: tuple[dict[str, Any], ...] = ()
    """What happened in every epoch; nothing if the checkpoint has just been replaced."""


def complete_checkpoints(folder: Storage) -> list[str]:
    """Names of those that all workers have finished, newest first; not checked further."""
    return [name for name in checkpoint_names(folder) if _is_complete(folder, name)]


def checkpoint_names(folder: Storage) -> list[str]:
    """Names of all that are there, finished or not, newest first."""
    return sorted({key.split("/")[0] for key in folder.list() if "/" in key}, reverse=True)


def _is_complete(folder: Storage, name: str) -> bool:
    if not folder.exists(rank_file(name, 0)):
        return False
    try:
        size = folder.read_json(rank_file(name, 0))["size"]
    except (StorageError, KeyError, TypeError):
        return False
    return all(folder.exists(rank_file(name, rank)) for rank in range(size))


def stage_progress(folder: Storage) -> StageProgress | None:
    """How far the stage is; None before its first checkpoint. A worker may be writing meanwhile."""
    for name in complete_checkpoints(folder):
        try:
            epoch, step = (int(word) for word in name.split("-"))
        except ValueError:  # no checkpoint by its name
            continue
        written = folder.modified(rank_file(name, 0))
        if written is None:  # it has just been replaced
            continue
        return StageProgress(epoch, step, written, _history(folder, name))
    return None


def _history(folder: Storage, name: str) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(folder.read_json(f"{name}/{CHECKPOINT_STATE_FILE}")["history"])
    except (StorageError, KeyError, TypeError):
        return ()


def is_ended(folder: Storage) -> bool:
    """Whether the end of the stage is there."""
    return folder.exists(STAGE_END_FILE)
