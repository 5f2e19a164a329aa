"""What every Ray Train worker needs: its team, its device, and a way to report an epoch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from torch import Tensor

from nas_core.team import DivergenceError
from nas_core.train import EpochReport

VALUE_BYTES = 64
"""Longest value that workers compare."""


class RayTeam:
    """The Ray Train workers of one run, over torch.distributed (gloo or NCCL)."""

    def __init__(self, device: torch.device) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.size: int = context.get_world_size()
        self._device = device

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, by its sum over all workers: one message per data type."""
        if self.size == 1:
            return
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.flatten() for tensor in same])
            dist.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in same])
            for tensor, part in zip(same, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def agree(self, what: str, value: str) -> None:
        """Raise DivergenceError on all workers unless all hold the same short text."""
        values = self.gather(value)
        if len(set(values)) > 1:
            raise DivergenceError(what, values)

    def gather(self, value: str) -> list[str]:
        """The short texts of all workers, by rank."""
        if self.size == 1:
            return [value]
        mine = value.encode().ljust(VALUE_BYTES, b"\0")
        sent = torch.frombuffer(bytearray(mine), dtype=torch.uint8).to(self._device)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent)
        return [bytes(one.tolist()).rstrip(b"\0").decode() for one in received]

    def wait(self) -> None:
        """Return when all workers have come here."""
        if self.size > 1:
            dist.barrier()


def worker_device() -> torch.device:
    """The GPU that Ray gave this worker, or the CPU."""
    from ray.train.torch import get_device

    device: torch.device = get_device()
    return device


def timed_epochs(reports: Iterator[EpochReport]) -> Iterator[dict[str, Any]]:
    """Each report as plain values, with `seconds` that the epoch took and the `time` of its end."""
    began = time.perf_counter()
    for report in reports:
        seconds = time.perf_counter() - began
        yield {**asdict(report), "seconds": seconds, "time": time.time()}
        began = time.perf_counter()


def report_epoch(record: dict[str, Any], save: Callable[[Path], None]) -> None:
    """Hand an epoch to the driver, with a checkpoint to which every worker adds its part."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(record, checkpoint=checkpoint)


def report_network(record: dict[str, Any]) -> None:
    """Hand what became of one network to the driver; storage keeps it, so no checkpoint."""
    ray.train.report(record)


def report_note(text: str) -> None:
    """Hand the driver a sentence for the person who reads it."""
    ray.train.report({"note": text})
