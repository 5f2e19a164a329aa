"""A training step: micro-batches, one all-reduce, and no update if a value is not finite.

If a worker's part of a batch does not fit into memory, it is split into micro-batches; their
gradients are accumulated and averaged over workers once, during the last backward pass. The loss
and the step signals of the workers are sent along, so that all workers skip a step, save and stop
at the same step.
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
    """Too many consecutive steps had a loss or gradient that is not finite."""


@dataclass(frozen=True)
class StepTarget:
    """Parameters and buffers that a step trains, and the forward pass through them."""

    forward: Callable[[Batch], Tensor]
    """Forward pass of a batch to logits (n, classes)."""
    parameters: Sequence[nn.Parameter]
    """Parameters that get a gradient, in the order of the forward pass."""
    buffers: Sequence[Tensor]
    """BatchNorm statistics that the forward pass updates."""
    what: str
    """Description for messages, compared across workers: the path."""


@dataclass(frozen=True)
class Trainer:
    """Training steps of one optimizer."""

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
        """Create a trainer with the precision of the settings on the device of the weights."""
        device = optimizer.param_groups[0]["params"][0].device
        return cls(optimizer, scaler, settings, precision_of(settings, device), group)

    def step(self, batch: Batch, target: StepTarget, progress: Progress, lr: float) -> None:
        """One optimizer step on the mean gradient over the images of all workers.

        If the loss or gradient is not finite, the step changes nothing on any worker, including
        BatchNorm statistics. (In fp16 a gradient that is not finite only lowers the loss scale.)

        Args:
            batch: this worker's part of the batch.
            target: what the step trains; the same on all workers.
            progress: counters and statistics to update.
            lr: learning rate, before `progress.lr_share`.

        Raises:
            LossError: more than `max_bad_steps` consecutive steps were not finite.
        """
        set_lr(self.optimizer, lr * progress.lr_share)
        self.optimizer.zero_grad(
            set_to_none=True
        )  # None, not 0: other parameters keep weight and momentum
        before = [buffer.clone() for buffer in target.buffers]
        tally = Tally()
        loss, norm, signals = self._backward(batch, target, tally)
        if math.isfinite(loss) and (self.scaler.is_enabled() or math.isfinite(norm)):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            progress.tally.sums = progress.tally.sums.to(tally.sums.device) + tally.sums
            progress.bad_steps = 0
        else:
            _restore(target.buffers, before)
            progress.bad_steps += 1
            progress.skipped += 1
        progress.note_trained(target.what)
        progress.step += 1
        self.group.apply_signals(signals)
        if progress.bad_steps > self.settings.max_bad_steps:
            raise LossError(self._failure_text(target, progress, loss, norm))

    def _backward(
        self, batch: Batch, target: StepTarget, tally: Tally
    ) -> tuple[float, float, list[float]]:
        """Average the gradients; return mean loss, gradient norm and the sums of the signals."""
        parts = batch.parts(self.settings.micro_batch_size)
        facts = torch.zeros(1, device=batch.images.device)
        for number, part in enumerate(parts, start=1):
            with self.precision.autocast():
                logits = target.forward(part)
                loss = F.cross_entropy(
                    logits, part.labels, label_smoothing=self.settings.label_smoothing
                )
            tally.add(logits, part.labels, loss)
            weighted = loss * part.share
            facts = facts + weighted.detach().float()
            averaging: AbstractContextManager[None] = nullcontext()
            if number == len(parts):
                facts = torch.cat([facts, facts.new_tensor(self.group.signal_values())])
                averaging = self.group.averaging(target.parameters, facts)
            with averaging:
                self.scaler.scale(weighted).backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in target.parameters if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        mean_loss, *signals, grad_norm = torch.cat([facts, norm[None]]).tolist()
        return mean_loss, grad_norm, signals

    def _failure_text(
        self, target: StepTarget, progress: Progress, loss: float, norm: float
    ) -> str:
        """Error message with the state of the training."""
        with torch.no_grad():
            largest = max(float(p.abs().max()) for p in target.parameters)
            spread = max((float(b.abs().max()) for b in target.buffers), default=0.0)
        return (
            f"the loss or its gradient was not finite in {progress.bad_steps} steps in a row, "
            f"the last of them step {progress.step} of epoch {progress.epoch + 1}: loss {loss:g}, "
            f"gradient norm {norm:g}, learning rate {self.optimizer.param_groups[0]['lr']:.3g}, "
            f"largest weight {largest:.3g}, largest BatchNorm statistic {spread:.3g}, "
            f"on {target.what}"
        )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the same learning rate in all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def _restore(buffers: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    for buffer, old in zip(buffers, before, strict=True):
        buffer.copy_(old)
