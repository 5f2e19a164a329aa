"""Progress of a stage, as read from the folder of its checkpoints. Must not import torch.

`checkpoint.py` describes the layout of the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.storage import Storage, StorageError
from orchestration.config.storage_layout import CHECKPOINT_STATE_FILE, STAGE_END_FILE, rank_file


@dataclass(frozen=True)
class StageProgress:
    """Progress recorded in the newest complete checkpoint of a stage."""

    epoch: int
    """Finished epochs, including those of the warm-up if the stage began with one."""
    step: int
    """Finished steps of the current epoch."""
    written: float
    """Time of the checkpoint, seconds since 1970."""
    history: tuple[dict[str, Any], ...] = ()
    """Reports of all epochs; empty if the checkpoint was deleted while it was read."""


def complete_checkpoints(folder: Storage) -> list[str]:
    """Names of checkpoints written by all workers, newest first; contents are not verified."""
    return [name for name in checkpoint_names(folder) if _is_complete(folder, name)]


def checkpoint_names(folder: Storage) -> list[str]:
    """Names of all checkpoints, complete or not, newest first."""
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
    """Progress of a stage; None before its first checkpoint. Safe while workers are writing."""
    for name in complete_checkpoints(folder):
        try:
            epoch, step = (int(word) for word in name.split("-"))
        except ValueError:  # not the name of a checkpoint
            continue
        written = folder.modified(rank_file(name, 0))
        if written is None:  # deleted since it was listed
            continue
        return StageProgress(epoch, step, written, _history(folder, name))
    return None


def _history(folder: Storage, name: str) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(folder.read_json(f"{name}/{CHECKPOINT_STATE_FILE}")["history"])
    except (StorageError, KeyError, TypeError):
        return ()


def is_ended(folder: Storage) -> bool:
    """Whether the stage has finished and its last checkpoint is kept."""
    return folder.exists(STAGE_END_FILE)
