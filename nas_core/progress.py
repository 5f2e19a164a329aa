"""Progress of training: counters of a stage, statistics of an epoch, and epoch reports."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nas_core.workers import ProcessGroup


@dataclass(frozen=True)
class EpochReport:
    """Statistics of one epoch, over all workers."""

    phase: str
    """"warmup", "search", "compare" (networks are only scored), "trial" or "retrain"."""
    epoch: int
    """Number of the epoch, from 0 (warm-up and search are counted together)."""
    loss: float
    top1: float
    """Training accuracy, 0 to 1; in phase "compare", the accuracy of the best network so far."""
    latency_ms: float | None = None
    """Expected latency at the end of the epoch; in phase "compare", the latency of the best
    network so far; None if there is neither.
    """
    entropy: float | None = None
    """Mean entropy of the op probabilities over sites, nats."""
    skipped: int = 0
    """Steps skipped so far in this run because their loss or gradient was not finite."""
    probs: list[list[float]] | None = None
    """Op probabilities of every site at the end of the epoch; None if they do not change."""


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy (0 to 1) on held-out images."""

    loss: float
    top1: float
    top5: float
    count: int


class Tally:
    """Sums of loss and hits over an epoch; tensors, so that no step waits for the device."""

    def __init__(self) -> None:
        self.sums: Tensor = torch.zeros(4, dtype=torch.float64)
        """Sums of this worker: loss, top-1 hits, top-5 hits, images."""

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Add one batch: logits (n, classes), labels (n,), mean loss."""
        self.sums = self.sums.to(logits.device)
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        hits = torch.stack([best[:, 0].sum(), best.sum()]).double()
        self.sums += torch.cat(
            [loss.double()[None] * len(labels), hits, hits.new_tensor([len(labels)])]
        )

    def evaluation(self, group: ProcessGroup) -> Evaluation:
        """Means over all batches of all workers; NaN if there were none."""
        sums = self.sums.clone()
        group.sum([sums])
        loss, top1, top5, count = sums.tolist()
        images = count or float("nan")
        return Evaluation(loss / images, top1 / images, top5 / images, int(count))


@dataclass(kw_only=True)
class Progress:
    """Counters of a stage. Together with its tensors, all that is needed to resume it."""

    epoch: int = 0
    """Number of finished epochs."""
    step: int = 0
    """Finished steps of the current epoch; networks, in phases that score networks."""
    bad_steps: int = 0
    """Consecutive skipped steps (loss or gradient not finite)."""
    skipped: int = 0
    """Total number of skipped steps."""
    lr_share: float = 1.0
    """Factor on the learning rates of the weights; less than 1 after a roll-back."""
    trained: str = ""
    """Digest of the paths trained in this epoch; equal on all workers."""
    tally: Tally = field(default_factory=Tally)
    """Statistics of the current epoch; each worker has its own."""

    def note_trained(self, what: str) -> None:
        """Add a training target, which must be the same on every worker, to the digest."""
        chained = f"{self.trained}/{what}".encode()
        self.trained = hashlib.sha256(chained).hexdigest()[:16]

    def end_epoch(self, epochs: int = 1) -> None:
        """Advance by `epochs` and reset what is counted per epoch."""
        self.epoch += epochs
        self.step, self.trained, self.tally = 0, "", Tally()

    def counters(self) -> dict[str, Any]:
        """Counters as plain values, without the statistics, which differ between workers."""
        names = ("epoch", "step", "bad_steps", "skipped", "lr_share", "trained")
        return {name: getattr(self, name) for name in names}

    def restore(self, counters: dict[str, Any], sums: Tensor | None) -> None:
        """Restore `counters`; counters that are missing there keep their values."""
        for name in Progress().counters().keys() & counters.keys():
            setattr(self, name, counters[name])
        if sums is not None:
            self.tally.sums = sums.clone()
