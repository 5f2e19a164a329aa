"""A training step: parts of a batch, one average over workers, and what is not finite skipped.

A worker's part of a batch is cut into micro-batches where it does not fit; their gradients add up
and travel once, while the last backward pass still runs. With the gradients travel the loss and
the signals of the workers, so that all skip, save and stop at the same step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.batch import Batch
from nas_core.precision import Precision, precision_of
from nas_core.progress import Progress, Tally
from nas_core.settings import TrainingSettings
from nas_core.workers import ProcessGroup


class LossError(ArithmeticError):
    """Too many steps in a row whose loss or gradient is not finite."""


@dataclass(frozen=True)
class StepTarget:
    """What a step trains, all in the order of the forward pass."""

    forward: Callable[[Batch], Tensor]
    """A batch to logits (n, classes)."""
    parameters: Sequence[nn.Parameter]
    """All that get a gradient."""
    buffers: Sequence[Tensor]
    """BatchNorm statistics that the forward pass moves."""
    what: str
    """For people, and to be compared across workers: the path."""


@dataclass(frozen=True)
class Trainer:
    """Steps of one optimizer."""

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    settings: TrainingSettings
    precision: Precision
    group: ProcessGroup

    @classmethod
    def of(
        cls,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        settings: TrainingSettings,
        group: ProcessGroup,
    ) -> Trainer:
        """In the number format that the settings mean on the device of the weights."""
        device = optimizer.param_groups[0]["params"][0].device
        return cls(optimizer, scaler, settings, precision_of(settings, device), group)

    def step(self, batch: Batch, trained: StepTarget, progress: Progress, lr: float) -> None:
        """One step on the mean gradient over the images of all workers.

        A step whose loss or gradient is not finite moves nothing on any worker, BatchNorm
        statistics included. (In fp16 a gradient that is not finite only lowers the loss scale.)

        Args:
            batch: this worker's part of it.
            trained: what the step trains; the same on all workers.
            progress: counts the step.
            lr: learning rate, before `progress.lr_share`.

        Raises:
            LossError: more than `max_bad_steps` of them in a row were not finite.
        """
        set_lr(self.optimizer, lr * progress.lr_share)
        self.optimizer.zero_grad(set_to_none=True)  # not 0: no decay, no momentum elsewhere
        before = [buffer.clone() for buffer in trained.buffers]
        seen = Tally()
        loss, norm, signals = self._backward(batch, trained, seen)
        if math.isfinite(loss) and (self.scaler.is_enabled() or math.isfinite(norm)):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            progress.tally.sums = progress.tally.sums.to(seen.sums.device) + seen.sums
            progress.bad_steps = 0
        else:
            _put_back(trained.buffers, before)
            progress.bad_steps += 1
            progress.skipped += 1
        progress.note_trained(trained.what)
        progress.step += 1
        self.group.apply_signals(signals)
        if progress.bad_steps > self.settings.max_bad_steps:
            raise LossError(self._story(trained, progress, loss, norm))

    def _backward(
        self, batch: Batch, trained: StepTarget, seen: Tally
    ) -> tuple[float, float, list[float]]:
        """Gradients, averaged; mean loss, norm of the gradients, sums of the workers' signals."""
        parts = batch.parts(self.settings.micro_batch_size)
        facts = torch.zeros(1, device=batch.images.device)
        for number, part in enumerate(parts, start=1):
            with self.precision.autocast():
                logits = trained.forward(part)
                loss = F.cross_entropy(
                    logits, part.labels, label_smoothing=self.settings.label_smoothing
                )
            seen.add(logits, part.labels, loss)
            weighted = loss * part.share
            facts = facts + weighted.detach().float()
            averaging: AbstractContextManager[None] = nullcontext()
            if number == len(parts):
                facts = torch.cat([facts, facts.new_tensor(self.group.signal_values())])
                averaging = self.group.averaging(trained.parameters, facts)
            with averaging:
                self.scaler.scale(weighted).backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in trained.parameters if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        mean_loss, *signals, length = torch.cat([facts, norm[None]]).tolist()
        return mean_loss, length, signals

    def _story(self, trained: StepTarget, progress: Progress, loss: float, norm: float) -> str:
        """What is known of a training that went wrong."""
        with torch.no_grad():
            largest = max(float(p.abs().max()) for p in trained.parameters)
            spread = max((float(b.abs().max()) for b in trained.buffers), default=0.0)
        return (
            f"the loss or its gradient was not finite in {progress.bad_steps} steps in a row, "
            f"the last of them step {progress.step} of epoch {progress.epoch + 1}: loss {loss:g}, "
            f"gradient norm {norm:g}, learning rate {self.optimizer.param_groups[0]['lr']:.3g}, "
            f"largest weight {largest:.3g}, largest BatchNorm statistic {spread:.3g}, "
            f"on {trained.what}"
        )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same learning rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def _put_back(buffers: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    for buffer, old in zip(buffers, before, strict=True):
        buffer.copy_(old)
