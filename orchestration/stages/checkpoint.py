"""Checkpoints of a stage: tensors and small JSON files in storage, no pickled classes.

    <stage>/<epochs>-<steps>/shared.pt       weights, alphas, optimizers: equal on all workers
                             state.json      counters and history, by the first worker
                             buffers-R.pt    BatchNorm statistics and tally of worker R
                             rank-R.json     sizes and checksums of worker R's files, written last

A checkpoint is valid if the files of all its workers exist and match their checksums. Each worker
copies its part between two steps and writes it in the background.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cluster.storage import Storage, StorageError
from nas_core.progress import Progress
from orchestration.config.storage_layout import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_SHARED_FILE,
    CHECKPOINT_STATE_FILE,
    buffers_file,
    rank_file,
)
from orchestration.state.checkpoint_index import checkpoint_names, complete_checkpoints

PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Pauses between attempts to write."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read."""

    counters: dict[str, Any]
    """State of the stage other than tensors; plain values."""
    history: list[dict[str, Any]]
    module: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    sums: Tensor
    """Share of the tally that belongs to this worker."""

    def load_into(
        self, progress: Progress, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        """Restore progress, module and optimizers."""
        progress.restore(self.counters, self.sums)
        module.load_state_dict(self.module)
        for optimizer, values in zip(optimizers, self.optimizers, strict=True):
            optimizer.load_state_dict(values)


@dataclass(frozen=True)
class Snapshot:
    """One worker's part of a checkpoint, copied to CPU memory."""

    name: str
    """Name of the checkpoint: finished epochs and steps, so that names sort by time."""
    rank: int
    size: int
    tensors: dict[str, Any]
    """Nested tensors by file name."""
    facts: dict[str, Any]

    def files(self) -> dict[str, bytes]:
        """Content of this worker's files."""
        files = {name: _torch_bytes(values) for name, values in self.tensors.items()}
        if self.rank == 0:
            files[CHECKPOINT_STATE_FILE] = json.dumps(self.facts).encode()
        return files


def snapshot(
    progress: Progress,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    counters: dict[str, Any],
    history: list[dict[str, Any]],
    rank: int = 0,
    size: int = 1,
) -> Snapshot:
    """Copy the current state of a stage."""
    own = {"buffers": dict(module.named_buffers()), "tally": progress.tally.sums}
    tensors = {buffers_file(rank): _copied(own)}
    if rank == 0:
        shared = {
            "parameters": {name: p.detach() for name, p in module.named_parameters()},
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        }
        tensors[CHECKPOINT_SHARED_FILE] = _copied(shared)
    facts = {
        "format": CHECKPOINT_FORMAT,
        "size": size,
        "counters": {**progress.counters(), **counters},
        "history": list(history),
    }
    return Snapshot(checkpoint_name(progress), rank, size, tensors, facts)


def checkpoint_name(progress: Progress) -> str:
    """Name of a checkpoint: finished epochs and steps, so that names sort by time."""
    return f"{progress.epoch:05d}-{progress.step:08d}"


def _copied(values: Any) -> Any:
    """The same nested values with tensors copied to CPU memory."""
    if isinstance(values, Tensor):
        return values.detach().to("cpu", copy=True)
    if isinstance(values, dict):
        return {key: _copied(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_copied(value) for value in values]
    return values


def _torch_bytes(values: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


class Checkpoints:
    """The checkpoints of one stage, used by one worker."""

    def __init__(self, storage: Storage, keep: int = 2) -> None:
        """Set the folder, and how many checkpoints to keep. Reads and writes nothing."""
        self._storage, self._keep = storage, keep
        self._writer: threading.Thread | None = None
        self._failure: StorageError | None = None

    def save(self, taken: Snapshot) -> None:
        """Write a snapshot in the background, after the previous one.

        Raises:
            CheckpointError: the previous one could not be written.
        """
        self.finish()
        self._writer = threading.Thread(target=self._write, args=(taken,), name="checkpoint")
        self._writer.start()

    def finish(self) -> None:
        """Wait until the last snapshot is written.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure is not None:
            last = next((f"{self._storage.uri}/{name}" for name in self.complete()), "none")
            raise CheckpointError(
                f"a checkpoint could not be written in {len(PAUSES_S) + 1} attempts: "
                f"{self._failure}; the last good one is {last}; make room there, and the same "
                "command goes on from it"
            )

    def _write(self, taken: Snapshot) -> None:
        files = taken.files()
        for pause in (*PAUSES_S, None):
            try:
                self._write_files(taken, files)
                if taken.rank == 0:
                    self._prune()
                return
            except StorageError as error:
                if pause is None:
                    self._failure = error
                    return
                time.sleep(pause)

    def _write_files(self, taken: Snapshot, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            self._storage.write_bytes(f"{taken.name}/{name}", content)
        listed = {name: {"bytes": len(c), "sha256": _sha(c)} for name, c in files.items()}
        manifest = {"size": taken.size, "files": listed}
        self._storage.write_json(rank_file(taken.name, taken.rank), manifest)

    def _prune(self) -> None:
        """Delete checkpoints older than the newest complete ones; newer ones may be incomplete."""
        kept = self.complete()[: self._keep]
        if len(kept) == self._keep:
            for name in checkpoint_names(self._storage):
                if name < kept[-1]:
                    self._storage.delete(name)

    def complete(self) -> list[str]:
        """Names of checkpoints written by all workers, newest first; contents are not verified."""
        return complete_checkpoints(self._storage)

    def newest_good(self, warn: Callable[[str], None]) -> str | None:
        """Name of the newest undamaged checkpoint; `warn` is called for newer, damaged ones."""
        for name in self.complete():
            problem = self._problem(name)
            if problem is None:
                return name
            path = f"{self._storage.uri}/{name}"
            warn(f"checkpoint {path} is damaged ({problem}); taking the one before")
        return None

    def _problem(self, name: str) -> str | None:
        try:
            return self._damage(name)
        except (StorageError, KeyError, TypeError) as error:
            return str(error)

    def _damage(self, name: str) -> str | None:
        size = self._storage.read_json(rank_file(name, 0))["size"]
        for rank in range(size):
            for file, expected in self._storage.read_json(rank_file(name, rank))["files"].items():
                if not self._storage.exists(f"{name}/{file}"):
                    return f"{file} is missing"
                content = self._storage.read_bytes(f"{name}/{file}")
                if len(content) != expected["bytes"]:
                    return f"{file} has {len(content)} bytes, {expected['bytes']} were written"
                if _sha(content) != expected["sha256"]:
                    return f"{file} has another checksum than when it was written"
        return None

    def load(self, name: str, rank: int, size: int, device: torch.device) -> Saved:
        """Read a checkpoint for worker `rank` of `size`.

        If the number of workers has changed, each worker takes the BatchNorm statistics of one of
        the former workers, and the tallies of all former workers are distributed.

        Raises:
            ValueError: the checkpoint has another format.
        """
        facts = self._storage.read_json(f"{name}/{CHECKPOINT_STATE_FILE}")
        if facts.get("format") != CHECKPOINT_FORMAT:
            raise ValueError(
                f"{self._storage.uri}/{name} is not a checkpoint of format {CHECKPOINT_FORMAT!r}"
            )
        shared = self._tensors(f"{name}/{CHECKPOINT_SHARED_FILE}", device)
        before = facts["size"]

        def part(writer: int) -> dict[str, Any]:
            return self._tensors(f"{name}/{buffers_file(writer)}", device)

        parts = {writer: part(writer) for writer in _mine(rank, size, before)}
        own = parts.get(rank) or part(rank % before)
        sums = [parts[r]["tally"] for r in sorted(parts)]
        return Saved(
            counters=facts["counters"],
            history=facts["history"],
            module={**shared["parameters"], **own["buffers"]},
            optimizers=shared["optimizers"],
            sums=torch.stack(sums).sum(0) if sums else torch.zeros_like(own["tally"]),
        )

    def _tensors(self, key: str, device: torch.device) -> dict[str, Any]:
        content = io.BytesIO(self._storage.read_bytes(key))
        values: dict[str, Any] = torch.load(content, map_location=device, weights_only=True)
        return values


def _mine(rank: int, size: int, before: int) -> range:
    """Former workers whose tallies worker `rank` of `size` takes over."""
    return range(rank, before, size)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
