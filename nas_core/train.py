"""Training and evaluation of a network.

Source of the recipe: the published retraining (SGD with Nesterov momentum, cosine decay, label
smoothing, no weight decay of BatchNorm and biases).
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
from nas_core.precision import no_scaler, precision_of, to_device
from nas_core.progress import EpochReport, Evaluation, Progress, Tally
from nas_core.randomness import counted_seed, generator
from nas_core.settings import RetrainSettings
from nas_core.train_step import LossError, StepTarget, Trainer
from nas_core.workers import ProcessGroup


def cosine_lr(lr: float, step: int, steps: int) -> float:
    """Cosine decay from `lr` at step 0 to 0 at step `steps`."""
    return 0.5 * lr * (1 + math.cos(math.pi * step / steps))


@dataclass
class TrainState(Progress):
    """State of a training: everything that is needed to resume it."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler = field(default_factory=no_scaler)


def start_training(
    model: Model, settings: RetrainSettings, seed: int, device: torch.device
) -> TrainState:
    """Initial state of a training: a network with new weights, and its optimizer.

    Architectures of a space are initialized as in the published recipe; other networks keep the
    initialization of their builder, drawn from the same seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(counted_seed(seed, "retrain weights"))
        network = model.build(settings.dropout)
    if isinstance(model, Architecture):
        initialise(network, generator(seed, "retrain weights"))
    to_device(network, settings, device)
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
    """Continue `state` to `settings.epochs`; yield a report after each epoch."""
    for report in train_steps(state, loader, settings, seed, group):
        if report is not None:
            yield report


def train_to_the_end(
    state: TrainState, loader: Loader, settings: RetrainSettings, seed: int, group: ProcessGroup
) -> None:
    """Train to the end without reports.

    A network that diverges keeps the weights of its last finite step.
    """
    try:
        for _ in train_epochs(state, loader, settings, seed, group):
            pass
    except LossError:  # raised on all workers
        return


def train_steps(
    state: TrainState, loader: Loader, settings: RetrainSettings, seed: int, group: ProcessGroup
) -> Iterator[EpochReport | None]:
    """Like `train_epochs`, step by step: yields None after each step within an epoch.

    At each yield the state can be saved, or the loop left.
    """
    steps = loader.steps
    batches = loader.batches(state.epoch * steps + state.step)
    total = settings.epochs * steps
    trainer = Trainer.of(state.optimizer, state.scaler, settings, group)
    while state.epoch < settings.epochs:
        state.network.train()
        while state.step < steps:
            number = state.epoch * steps + state.step
            lr, seed_of_step = (
                cosine_lr(settings.lr, number, total),
                counted_seed(seed, "dropout", number),
            )
            train_step(state, next(batches), trainer, lr, seed_of_step)
            if state.step < steps:
                yield None
        evaluation = state.tally.evaluation(group)
        report = EpochReport(
            "retrain", state.epoch, evaluation.loss, evaluation.top1, skipped=state.skipped
        )
        state.end_epoch()
        yield report


def train_step(state: TrainState, batch: Batch, trainer: Trainer, lr: float, seed: int) -> None:
    """Train the whole network for one step.

    Dropout masks are seeded per image position, so they do not depend on how the batch is split.
    """

    def forward(part: Batch) -> Tensor:
        torch.manual_seed(counted_seed(seed, "part", part.first))
        logits: Tensor = state.network(part.images)
        return logits

    parameters, buffers = list(state.network.parameters()), list(state.network.buffers())
    trainer.step(batch, StepTarget(forward, parameters, buffers, "the whole network"), state, lr)


def averaged_copy(network: nn.Module, group: ProcessGroup) -> nn.Module:
    """Copy in evaluation mode whose BatchNorm statistics are the mean over all workers.

    The network itself is not changed: otherwise the result of a training would depend on when it
    was evaluated.
    """
    network = copy.deepcopy(network).eval()
    average_statistics(network, group)
    return network


def average_statistics(network: nn.Module, group: ProcessGroup) -> None:
    """Replace BatchNorm statistics, in place, by their mean over all workers."""
    if group.size > 1:
        buffers = [b for b in network.buffers() if b.is_floating_point()]
        for buffer in buffers:
            buffer.div_(group.size)
        group.sum(buffers)


REFRESH_BATCHES = 20
"""Training batches used to recompute BatchNorm statistics before an evaluation."""


@torch.no_grad()
def refresh_statistics(network: nn.Module, batches: Iterable[Batch]) -> None:
    """Recompute BatchNorm statistics, in place, as the plain mean over these batches.

    The moving averages of training lag behind by some twenty steps: after a short training on a
    small data set they still reflect earlier weights. Weights do not change.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None: cumulative mean
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
    """Mean entropy over sites, -sum p log p, in nats."""
    return float(torch.stack([-(p * p.clamp_min(1e-30).log()).sum() for p in probs]).mean())
