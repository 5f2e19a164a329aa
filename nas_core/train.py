"""Training and evaluating a plain network.

Source of the recipe: the published retraining (SGD with Nesterov momentum, cosine, label
smoothing, no decay of BatchNorm and biases).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.architecture import Architecture, Model
from nas_core.batch import Batch, Loader
from nas_core.blocks import initialise
from nas_core.precision import no_scaler, place, precision_of
from nas_core.progress import EpochReport, Evaluation, Progress, Tally
from nas_core.randomness import counted_seed, generator
from nas_core.settings import RetrainSettings
from nas_core.train_step import LossError, StepTarget, Trainer
from nas_core.workers import ProcessGroup


def cosine_lr(lr: float, step: int, steps: int) -> float:
    """From `lr` at step 0 towards 0 at step `steps`."""
    return 0.5 * lr * (1 + math.cos(math.pi * step / steps))


@dataclass
class TrainState(Progress):
    """A network in training; everything that a resumed run needs."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler = field(default_factory=no_scaler)


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
    place(network, settings, device)
    decayed = [p for p in network.parameters() if p.dim() > 1]
    plain = [p for p in network.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(
        groups, settings.lr, settings.momentum, nesterov=settings.momentum > 0
    )
    return TrainState(network, optimizer, precision_of(settings, device).scaler())


def train_epochs(
    state: TrainState, loader: Loader, settings: RetrainSettings, seed: int, group: ProcessGroup
) -> Iterator[EpochReport]:
    """Continue `state` to `settings.epochs`; after each epoch yield what happened in it."""
    for report in train_steps(state, loader, settings, seed, group):
        if report is not None:
            yield report


def train_to_the_end(
    state: TrainState, loader: Loader, settings: RetrainSettings, seed: int, group: ProcessGroup
) -> None:
    """Train a network to be compared with others: one that diverges ends with the weights that its
    last finite step left."""
    try:
        for _ in train_epochs(state, loader, settings, seed, group):
            pass
    except LossError:  # on all workers alike
        return


def train_steps(
    state: TrainState, loader: Loader, settings: RetrainSettings, seed: int, group: ProcessGroup
) -> Iterator[EpochReport | None]:
    """The same step by step: None after each, where the state may be saved, or the loop left."""
    steps = loader.steps
    batches = loader.batches(state.epoch * steps + state.step)
    total = settings.epochs * steps
    trainer = Trainer.of(state.optimizer, state.scaler, settings, group)
    while state.epoch < settings.epochs:
        state.network.train()
        while state.step < steps:
            number = state.epoch * steps + state.step
            lr, drops = cosine_lr(settings.lr, number, total), counted_seed(seed, "dropout", number)
            train_step(state, next(batches), trainer, lr, drops)
            if state.step < steps:
                yield None
        seen = state.tally.evaluation(group)
        report = EpochReport("retrain", state.epoch, seen.loss, seen.top1, skipped=state.skipped)
        state.end_epoch()
        yield report


def train_step(state: TrainState, batch: Batch, trainer: Trainer, lr: float, seed: int) -> None:
    """Train the whole network; every image drops something else, however the batch is cut."""

    def forward(part: Batch) -> Tensor:
        torch.manual_seed(counted_seed(seed, "part", part.first))
        logits: Tensor = state.network(part.images)
        return logits

    parameters, buffers = list(state.network.parameters()), list(state.network.buffers())
    trainer.step(batch, StepTarget(forward, parameters, buffers, "the whole network"), state, lr)


def averaged_copy(network: nn.Module, group: ProcessGroup) -> nn.Module:
    """A copy in evaluation mode whose BatchNorm statistics are the mean over all workers.

    A copy: averaging what is trained would make the result depend on when it was evaluated.
    """
    network = copy.deepcopy(network).eval()
    if group.size > 1:
        buffers = [b for b in network.buffers() if b.is_floating_point()]
        for buffer in buffers:
            buffer.div_(group.size)
        group.sum(buffers)
    return network


REFRESH_BATCHES = 20
"""Training batches from which BatchNorm statistics are taken before a test."""


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
def evaluate(network: nn.Module, batches: Iterable[Batch], group: ProcessGroup) -> Evaluation:
    """Loss and accuracy of a network in evaluation mode; `batches` are this worker's part."""
    tally = Tally()
    for batch in batches:
        logits = network(batch.images)
        tally.add(logits, batch.labels, F.cross_entropy(logits, batch.labels))
    return tally.evaluation(group)


def mean_entropy(probs: Sequence[Tensor]) -> float:
    """Mean over sites of -sum p log p, nats."""
    return float(torch.stack([-(p * p.clamp_min(1e-30).log()).sum() for p in probs]).mean())
