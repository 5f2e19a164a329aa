"""The search loop, as a generator of epoch reports.

Warm-up: weight steps on uniformly drawn paths. Search: weight steps on paths drawn from the op
probabilities and, after every few of them, an architecture update on the held-out split
(ProxylessNAS, sections 3.2 and 3.3; no update in the first epoch, as released).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_core.arch_update import ARCH_UPDATES
from nas_core.gates import sample_path, uniform_path
from nas_core.latency import LatencyTable, expected_latency_ms
from nas_core.objective import OBJECTIVES
from nas_core.randomness import generator
from nas_core.settings import SearchSettings
from nas_core.space import SearchSpace
from nas_core.supernet import Supernet
from nas_core.team import Team
from nas_core.train import (
    Batch,
    EpochReport,
    Loader,
    Tally,
    average_grads,
    cosine_lr,
    mean_entropy,
    set_lr,
)


@dataclass
class SearchState:
    """A search in progress; everything that a resumed run needs."""

    supernet: Supernet
    weight_optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Optimizer
    epoch: int = 0
    """Finished epochs, warm-up included."""
    alpha_steps: int = 0
    """Architecture updates made."""


@dataclass(frozen=True)
class SearchData:
    """The two parts of the training images that a search uses."""

    weight: Loader
    architecture: Loader


class LatencyGoal:
    """A budget on a target, with the costs of the space as tensors."""

    def __init__(self, table: LatencyTable, budget_ms: float, device: torch.device) -> None:
        costs = table.costs_ms(table.space)
        self.costs_ms = [torch.tensor(row, device=device) for row in costs]
        self.fixed_ms = table.fixed_ms(table.space)
        self.budget_ms = budget_ms

    def expected_ms(self, probs: list[Tensor]) -> Tensor:
        """Expected latency, differentiable in `probs`."""
        return expected_latency_ms(probs, self.costs_ms, self.fixed_ms)


def start_search(
    space: SearchSpace, settings: SearchSettings, seed: int, device: torch.device
) -> SearchState:
    """A freshly initialised supernet and its two optimizers."""
    supernet = Supernet(space, generator(seed, "supernet weights"))
    supernet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight_optimizer = torch.optim.SGD(
        supernet.weights(),
        settings.lr,
        settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )
    # beta1 = 0: with momentum, alphas that were not sampled would go on moving.
    alpha_optimizer = torch.optim.Adam(supernet.alphas(), settings.alpha_lr, betas=(0.0, 0.999))
    return SearchState(supernet, weight_optimizer, alpha_optimizer)


def search_epochs(
    state: SearchState,
    data: SearchData,
    goal: LatencyGoal,
    settings: SearchSettings,
    seed: int,
    team: Team,
) -> Iterator[EpochReport]:
    """Continue `state` to the end of the search; after each epoch yield what happened in it."""
    batches = data.weight.batches(state.epoch * data.weight.steps)
    held_out = data.architecture.batches(state.alpha_steps)
    while state.epoch < settings.total_epochs:
        tally = Tally()
        state.supernet.train()
        for step in range(data.weight.steps):
            _set_weight_lr(state, settings, step, data.weight.steps)
            path = _draw_path(state, settings, seed, step)
            weight_step(state, next(batches), path, settings.label_smoothing, tally, team)
            if _is_alpha_turn(state, settings, step, data.weight.steps):
                alpha_step(state, next(held_out), goal, settings, seed, team)
        yield _finish_epoch(state, tally, goal, settings, team)


def weight_step(
    state: SearchState,
    batch: Batch,
    path: list[int],
    label_smoothing: float,
    tally: Tally,
    team: Team,
) -> int:
    """Train the ops of one path; all others keep weight, momentum and BatchNorm statistics.

    Returns:
        How many gradient values were averaged with other workers.
    """
    state.weight_optimizer.zero_grad(
        set_to_none=True
    )  # None, not 0: no decay, no momentum elsewhere.
    logits = state.supernet(batch.images, path)
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    sent = average_grads(state.supernet.weights(), batch.share, team)
    state.weight_optimizer.step()
    tally.add(logits, batch.labels, loss)
    return sent


def alpha_step(
    state: SearchState,
    batch: Batch,
    goal: LatencyGoal,
    settings: SearchSettings,
    seed: int,
    team: Team,
) -> None:
    """One update of the architecture parameters; no weight and no buffer moves.

    The pairs are the same on all workers, the active op of each pair is the worker's own, and only
    the gradients travel: averaging alphas afterwards would not be equivalent under Adam.
    """
    net, update = state.supernet, ARCH_UPDATES[settings.strategy]()
    found = update.grads(
        net,
        batch.images,
        batch.labels,
        generator(seed, "pairs", state.alpha_steps),
        generator(seed, "active", state.alpha_steps, team.rank),
    )
    grads = [grad.mul_(batch.share) for grad in found.grads]
    team.sum(grads)
    penalties = _penalty_grads(net, goal, settings)
    before = [alpha.detach().clone() for alpha in net.alphas()]
    for alpha, grad, penalty in zip(net.alphas(), grads, penalties, strict=True):
        alpha.grad = grad + penalty
    state.alpha_optimizer.step()
    state.alpha_optimizer.zero_grad(set_to_none=True)
    _limit_steps(net, before, 2 * settings.alpha_lr)
    update.settle(net, before, found.pairs)
    state.alpha_steps += 1


@torch.no_grad()
def _limit_steps(net: Supernet, before: list[Tensor], largest: float) -> None:
    """Bound what one update moves.

    An op whose first gradient comes at step t would move by lr * sqrt(t) at once, since Adam's mean
    square of the gradients starts at 0 and is slow (beta2 .999). The paper has no such bound.
    """
    for alpha, old in zip(net.alphas(), before, strict=True):
        alpha.copy_(old + (alpha - old).clamp(-largest, largest))


def _penalty_grads(
    net: Supernet, goal: LatencyGoal, settings: SearchSettings
) -> tuple[Tensor, ...]:
    alphas = net.alphas()
    expected = goal.expected_ms([alpha.softmax(0) for alpha in alphas])
    penalty = OBJECTIVES[settings.objective](settings.beta)(expected, goal.budget_ms)
    return torch.autograd.grad(penalty, alphas)


def _set_weight_lr(state: SearchState, settings: SearchSettings, step: int, steps: int) -> None:
    if state.epoch < settings.warmup_epochs:
        lr, first, last = settings.warmup_lr, 0, settings.warmup_epochs
    else:
        lr, first, last = settings.lr, settings.warmup_epochs, settings.total_epochs
    done = (state.epoch - first) * steps + step
    set_lr(state.weight_optimizer, cosine_lr(lr, done, (last - first) * steps))


def _draw_path(state: SearchState, settings: SearchSettings, seed: int, step: int) -> list[int]:
    """The path of one weight step: the same on all workers without a word between them."""
    rng = generator(seed, "path", state.epoch, step)
    if state.epoch < settings.warmup_epochs:
        return uniform_path(state.supernet.choices(), rng)
    return sample_path(state.supernet.probs(), rng)


def _is_alpha_turn(state: SearchState, settings: SearchSettings, step: int, steps: int) -> bool:
    """Every `alpha_every` weight steps, counted on over the ends of epochs."""
    first_epoch = settings.warmup_epochs + settings.hold_epochs
    done = (state.epoch - first_epoch) * steps + step + 1
    return state.epoch >= first_epoch and done % settings.alpha_every == 0


def _finish_epoch(
    state: SearchState, tally: Tally, goal: LatencyGoal, settings: SearchSettings, team: Team
) -> EpochReport:
    team.agree("the architecture parameters", alphas_digest(state.supernet))
    probs, seen = state.supernet.probs(), tally.evaluation(team)
    report = EpochReport(
        phase="warmup" if state.epoch < settings.warmup_epochs else "search",
        epoch=state.epoch,
        loss=seen.loss,
        top1=seen.top1,
        latency_ms=float(goal.expected_ms(probs)),
        entropy=mean_entropy(probs),
    )
    state.epoch += 1
    return report


def alphas_digest(supernet: Supernet) -> str:
    """Sixteen hexadecimal digits that are equal for bit-identical architecture parameters."""
    values = torch.cat([alpha.detach().cpu().flatten() for alpha in supernet.alphas()])
    return hashlib.sha256(str(values.tolist()).encode()).hexdigest()[:16]
