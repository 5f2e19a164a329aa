"""How far training is: what a stage counts beside its tensors, and what it says of an epoch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nas_core.workers import ProcessGroup


@dataclass(frozen=True)
class EpochReport:
    """What happened in one epoch, over all workers."""

    phase: str
    """"warmup", "search", "compare" (networks are only scored), "trial" or "retrain"."""
    epoch: int
    """Counted from 0 within the run (warm-up and search together)."""
    loss: float
    top1: float
    """Of the training batches, as they were seen, 0 to 1; of the best network so far where networks
    are only scored."""
    latency_ms: float | None = None
    """Expected latency at the end of the epoch, or that of the best network so far; None where
    there is neither."""
    entropy: float | None = None
    """Of the op probabilities, mean over sites, nats."""
    skipped: int = 0
    """Steps of the run so far that moved nothing, since their loss or gradient was not finite."""
    probs: list[list[float]] | None = None
    """Of the ops of every site at the end of the epoch; None where they do not move."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracy on images that training never saw, 0 to 1."""

    loss: float
    top1: float
    top5: float
    count: int


class Tally:
    """Sums of loss and hits over an epoch, kept as tensors so that no step waits for a number."""

    def __init__(self) -> None:
        self.sums: Tensor = torch.zeros(4, dtype=torch.float64)
        """Of this worker: loss, hits, hits among the first five, images."""

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Count one batch: logits (n, classes), labels (n,), mean loss."""
        self.sums = self.sums.to(logits.device)
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        hits = torch.stack([best[:, 0].sum(), best.sum()]).double()
        self.sums += torch.cat(
            [loss.double()[None] * len(labels), hits, hits.new_tensor([len(labels)])]
        )

    def evaluation(self, group: ProcessGroup) -> Evaluation:
        """Means over all batches of all workers; not a number where nothing was counted."""
        sums = self.sums.clone()
        group.sum([sums])
        loss, top1, top5, count = sums.tolist()
        each = count or float("nan")
        return Evaluation(loss / each, top1 / each, top5 / each, int(count))


@dataclass(kw_only=True)
class Progress:
    """Counters of a stage. With its tensors they are everything that a resumed run needs."""

    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished steps of the epoch to come; networks, where those are scored."""
    bad_steps: int = 0
    """Steps in a row that moved nothing, since their loss or gradient was not finite."""
    skipped: int = 0
    """All such steps."""
    lr_share: float = 1.0
    """By which learning rates of the weights are multiplied; less than 1 after a roll-back."""
    trained: str = ""
    """Digest of what the steps of this epoch trained; equal on all workers."""
    tally: Tally = field(default_factory=Tally)
    """Of the epoch so far; each worker has its own."""

    def note_trained(self, what: str) -> None:
        """Count something that every worker has to train at this step."""
        chained = f"{self.trained}/{what}".encode()
        self.trained = hashlib.sha256(chained).hexdigest()[:16]

    def end_epoch(self, epochs: int = 1) -> None:
        """Begin the next one."""
        self.epoch += epochs
        self.step, self.trained, self.tally = 0, "", Tally()

    def counters(self) -> dict[str, Any]:
        """Plain values; the tally is beside them, since each worker has its own."""
        names = ("epoch", "step", "bad_steps", "skipped", "lr_share", "trained")
        return {name: getattr(self, name) for name in names}

    def restore(self, counters: dict[str, Any], sums: Tensor | None) -> None:
        """Go on from `counters`; what they lack stays as it is."""
        for name in Progress().counters().keys() & counters.keys():
            setattr(self, name, counters[name])
        if sums is not None:
            self.tally.sums = sums.clone()
