"""Training and evaluating a plain network; the weight step that the search uses too.

Source of the recipe: the published retraining (SGD with Nesterov momentum, cosine, label
smoothing, no decay of BatchNorm and biases).
Shapes: N = batch, C = channels, H, W = height and width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.architecture import Architecture, Model
from nas_core.blocks import initialise
from nas_core.randomness import counted_seed, generator
from nas_core.settings import RetrainSettings
from nas_core.team import Team


@dataclass(frozen=True)
class Batch:
    """One worker's part of a batch."""

    images: Tensor
    """(n, C, H, W), normalised."""
    labels: Tensor
    """(n,), int64."""
    total: int
    """Images of the batch on all workers together."""

    @property
    def share(self) -> float:
        """This worker's part of the batch: the weight of its gradients in the average."""
        return len(self.labels) / self.total


class Loader(Protocol):
    """Training images in counted order, each once a pass."""

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        ...

    def batches(self, start: int) -> Iterator[Batch]:
        """Endless, from batch number `start` of all passes on; every pass has its own order."""
        ...


@dataclass(frozen=True)
class SearchData:
    """The two parts of the training images that a search uses."""

    weight: Loader
    architecture: Loader


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


@dataclass(frozen=True)
class Evaluation:
    """Accuracy on images that training never saw, 0 to 1."""

    loss: float
    top1: float
    top5: float
    count: int


def cosine_lr(lr: float, step: int, steps: int) -> float:
    """From `lr` at step 0 towards 0 at step `steps`."""
    return 0.5 * lr * (1 + math.cos(math.pi * step / steps))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same learning rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def average_grads(parameters: Iterable[nn.Parameter], share: float, team: Team) -> int:
    """Average the gradients that are there over all workers; returns how many values were sent.

    Every worker ran the same path, so the same gradients are there on all; the rest of a supernet
    has none and does not travel. `share` is this worker's part of the batch.
    """
    if team.size == 1:
        return 0
    grads = [p.grad for p in parameters if p.grad is not None]
    for grad in grads:
        grad.mul_(share)
    team.sum(grads)
    return sum(grad.numel() for grad in grads)


class Tally:
    """Sums of loss and hits over an epoch, kept as tensors so that no step waits for a number."""

    def __init__(self) -> None:
        self._sums: Tensor = torch.zeros(4, dtype=torch.float64)

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Count one batch: logits (n, classes), labels (n,), mean loss."""
        self._sums = self._sums.to(logits.device)
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        hits = torch.stack([best[:, 0].sum(), best.sum()]).double()
        self._sums += torch.cat(
            [loss.double()[None] * len(labels), hits, hits.new_tensor([len(labels)])]
        )

    def evaluation(self, team: Team) -> Evaluation:
        """Means over all batches of all workers."""
        sums = self._sums.clone()
        team.sum([sums])
        loss, top1, top5, count = sums.tolist()
        return Evaluation(loss / count, top1 / count, top5 / count, int(count))


@dataclass
class TrainState:
    """A network in training; everything that a resumed run needs."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    """Finished epochs."""


def start_training(
    model: Model, settings: RetrainSettings, seed: int, device: torch.device
) -> TrainState:
    """A freshly initialised network and its optimizer.

    Architectures of a space take the initialisation of the published recipe; other networks keep
    the one they are built with, drawn from the same seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(counted_seed(seed, "retrain weights"))
        network = model.build(settings.dropout)
    if isinstance(model, Architecture):
        initialise(network, generator(seed, "retrain weights"))
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in network.parameters() if p.dim() > 1]
    plain = [p for p in network.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(
        groups, settings.lr, settings.momentum, nesterov=settings.momentum > 0
    )
    return TrainState(network, optimizer)


def train_epochs(
    state: TrainState, loader: Loader, settings: RetrainSettings, seed: int, team: Team
) -> Iterator[EpochReport]:
    """Continue `state` to `settings.epochs`; after each epoch yield what happened in it."""
    batches = loader.batches(state.epoch * loader.steps)
    total = settings.epochs * loader.steps
    while state.epoch < settings.epochs:
        state.network.train()
        tally = Tally()
        for step in range(state.epoch * loader.steps, (state.epoch + 1) * loader.steps):
            torch.manual_seed(counted_seed(seed, "dropout", step, team.rank))
            set_lr(state.optimizer, cosine_lr(settings.lr, step, total))
            train_step(state, next(batches), settings.label_smoothing, tally, team)
        seen = tally.evaluation(team)
        report = EpochReport("retrain", state.epoch, seen.loss, seen.top1)
        state.epoch += 1
        yield report


def train_step(
    state: TrainState, batch: Batch, label_smoothing: float, tally: Tally, team: Team
) -> None:
    """One step of a plain network."""
    state.optimizer.zero_grad()
    logits = state.network(batch.images)
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    average_grads(state.network.parameters(), batch.share, team)
    state.optimizer.step()
    tally.add(logits, batch.labels, loss)


def averaged_copy(network: nn.Module, team: Team) -> nn.Module:
    """A copy in evaluation mode whose BatchNorm statistics are the mean over all workers.

    A copy: averaging what is trained would make the result depend on when it was evaluated.
    """
    network = copy.deepcopy(network).eval()
    if team.size > 1:
        buffers = [b for b in network.buffers() if b.is_floating_point()]
        for buffer in buffers:
            buffer.div_(team.size)
        team.sum(buffers)
    return network


@torch.no_grad()
def refresh_statistics(network: nn.Module, batches: Iterable[Batch]) -> None:
    """Take BatchNorm statistics anew, in place, as the plain mean over these batches.

    The moving averages of training lag behind by some twenty steps: after a short training of a
    small data set they still belong to networks that are gone. Weights do not change.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain mean
    for batch in batches:
        network(batch.images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)


@torch.no_grad()
def evaluate(network: nn.Module, batches: Iterable[Batch], team: Team) -> Evaluation:
    """Loss and accuracy of a network in evaluation mode; `batches` are this worker's part."""
    tally = Tally()
    for batch in batches:
        logits = network(batch.images)
        tally.add(logits, batch.labels, F.cross_entropy(logits, batch.labels))
    return tally.evaluation(team)


def mean_entropy(probs: Sequence[Tensor]) -> float:
    """Mean over sites of -sum p log p, nats."""
    return float(torch.stack([-(p * p.clamp_min(1e-30).log()).sum() for p in probs]).mean())
