"""One update of a search: what the strategy found, averaged over workers, becomes a step.

Adam with betas 0 and .999, as released; the latency term enters with its exact gradient.
Source: ProxylessNAS, sections 3.2 and 3.3.
Shapes: K = candidate ops at a site.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from nas_core.gates import Pair, settle_pair
from nas_core.objective import objective_of
from nas_core.state import Search, SearchState
from nas_core.strategy import Scene, Update
from nas_core.team import Team
from nas_core.train import Batch, set_lr


def alpha_step(search: Search, batch: Batch | None) -> None:
    """One update of the strategy; no weight and no buffer moves.

    Only gradients travel between workers: averaging alphas afterwards would not be equivalent
    under Adam. Of a pair of ops that were compared, the sum of exponentials is settled to what the
    latency term alone makes of it.

    Args:
        search: whose architecture parameters, baseline, multiplier and trials are updated.
        batch: of the architecture part; None for strategies that score whole parts.
    """
    state, settings = search.state, search.settings
    update = search.strategy.update(_scene(search, batch))
    if update.grads is not None:
        update = _averaged(update, batch, search.team)
        slopes = _latency_grads(search, update)
        _move_alphas(search, slopes[0], slopes[1], update.pairs)
    if update.reward is not None:
        kept = settings.baseline_momentum if state.baseline is not None else 0.0
        state.baseline = kept * (state.baseline or 0.0) + (1 - kept) * update.reward
    if update.trial is not None:
        state.trials.append(update.trial)
    state.alpha_steps += 1


def _scene(search: Search, batch: Batch | None) -> Scene:
    state = search.state
    return Scene(
        net=state.supernet,
        goal=search.goal,
        objective=objective_of(search.settings, state.multiplier),
        settings=search.settings,
        seed=search.seed,
        number=state.alpha_steps,
        team=search.team,
        data=search.data,
        batch=batch,
        baseline=state.baseline,
        trials=state.trials,
    )


def _averaged(update: Update, batch: Batch | None, team: Team) -> Update:
    """The mean over workers, each weighted with its share of the batch."""
    assert update.grads is not None, "only updates with gradients are averaged"
    if batch is None:  # the whole team found it together
        return update
    loss, reward = update.loss, update.reward
    grads = [grad * batch.share for grad in update.grads]
    facts = grads[0].new_tensor([0.0 if loss is None else float(loss), reward or 0.0])
    facts = facts.double() * batch.share
    team.sum([*grads, facts])
    return Update(
        grads,
        None if loss is None else facts[0],
        None if reward is None else float(facts[1]),
        update.pairs,
    )


def _latency_grads(search: Search, update: Update) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of accuracy and of latency for every alpha, weighted as the objective says.

    Rewards have latency in them, except where the objective adds its gradient exactly.
    """
    assert update.grads is not None, "there is something to weigh"
    objective = objective_of(search.settings, search.state.multiplier)
    alphas = search.state.supernet.alphas()
    if update.loss is None and not objective.exact_latency:
        return update.grads, [torch.zeros_like(alpha) for alpha in alphas]
    loss = (update.loss if update.loss is not None else update.grads[0].new_zeros(())).detach()
    cross_entropy = loss.to(alphas[0].dtype).requires_grad_()
    expected = search.goal.expected_ms([alpha.softmax(0) for alpha in alphas])
    number = objective.loss(cross_entropy, expected, search.goal.budget_ms)
    slope, *latency = torch.autograd.grad(number, [cross_entropy, *alphas])
    return [slope * grad for grad in update.grads], latency


def _move_alphas(
    search: Search, accuracy: list[Tensor], latency: list[Tensor], pairs: list[Pair] | None
) -> None:
    """One step of Adam; then settle the pairs and the multiplier."""
    state, schedule = search.state, search.schedule
    lr = schedule.alpha_lr(state.alpha_steps)
    settled = None
    if pairs is not None:
        settled = _stepped_copy(state, latency, lr)
    _step(
        state.supernet.alphas(),
        state.alpha_optimizer,
        [a + b for a, b in zip(accuracy, latency, strict=True)],
        lr,
    )
    if pairs is not None and settled is not None:
        for alpha, alone, pair in zip(state.supernet.alphas(), settled, pairs, strict=True):
            settle_pair(alpha, alone, pair)
    expected_ms = float(search.goal.expected_ms(state.supernet.probs()))
    objective = objective_of(search.settings, state.multiplier)
    state.multiplier = objective.next_multiplier(expected_ms, search.goal.budget_ms, schedule.eta())


def _stepped_copy(state: SearchState, grads: list[Tensor], lr: float) -> Sequence[Tensor]:
    """The architecture parameters after a step on `grads` alone, from the same optimizer state."""
    alphas, optimizer = copy.deepcopy((state.supernet.alphas(), state.alpha_optimizer))
    _step(alphas, optimizer, grads, lr)
    return alphas


def _step(
    alphas: Sequence[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    grads: Sequence[Tensor],
    lr: float,
) -> None:
    """A step that moves no parameter by more than twice the learning rate.

    An op whose first gradient comes at step t would move by lr * sqrt(t) at once, since Adam's mean
    square of the gradients starts at 0 and is slow (beta2 .999). The paper has no such bound.
    """
    before = [alpha.detach().clone() for alpha in alphas]
    set_lr(optimizer, lr)
    for alpha, grad in zip(alphas, grads, strict=True):
        alpha.grad = grad
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for alpha, old in zip(alphas, before, strict=True):
            alpha.copy_(old + (alpha - old).clamp(-2 * lr, 2 * lr))
