"""One update of the architecture parameters, from gradients averaged over all workers.

Adam with betas 0 and .999, as in the release; the latency term contributes its exact gradient.
Source: ProxylessNAS, sections 3.2 and 3.3.
Shapes: K = candidate ops at a site.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from nas_core.batch import Batch
from nas_core.gates import Pair, rescale_pair
from nas_core.objective import objective_of
from nas_core.search_state import Search, SearchState
from nas_core.strategy import Update, UpdateContext
from nas_core.train_step import set_lr
from nas_core.workers import ProcessGroup


def alpha_step(search: Search, batch: Batch | None) -> None:
    """Update the architecture parameters once; no weight and no buffer changes.

    Only gradients are exchanged between workers: averaging alphas afterwards would not be
    equivalent under Adam. With `settle_pairs`, the two ops that were compared at a site are
    rescaled so that the sum of their exponentials is what the latency term alone would give.
    An update whose gradient is not finite is skipped.

    Args:
        search: its architecture parameters, baseline, multiplier and trials are updated in place.
        batch: images of the architecture split; None for strategies that score networks on the
            whole split.
    """
    state, settings = search.state, search.settings
    update = _update_from(search, batch)
    if update.grads is not None and _is_finite(update):
        grads = _latency_grads(search, update)
        _move_alphas(search, grads[0], grads[1], update.pairs)
    if update.reward is not None:
        momentum = settings.baseline_momentum if state.baseline is not None else 0.0
        state.baseline = momentum * (state.baseline or 0.0) + (1 - momentum) * update.reward
    if update.trial is not None:
        state.trials.append(update.trial)
    state.alpha_steps += 1


def _update_from(search: Search, batch: Batch | None) -> Update:
    """The strategy's update, identical on all workers."""
    if batch is None:
        return search.strategy.update(_context(search, None))
    parts = batch.parts(search.settings.micro_batch_size)
    with search.precision.autocast():
        updates = [search.strategy.update(_context(search, part)) for part in parts]
    return _averaged(updates, [part.share for part in parts], search.group)


def _is_finite(update: Update) -> bool:
    assert update.grads is not None, "only updates with gradients are checked"
    numbers = [grad.sum() for grad in update.grads]
    if update.loss is not None:
        numbers.append(update.loss.to(numbers[0].dtype))
    return bool(torch.stack(numbers).isfinite().all())


def _context(search: Search, batch: Batch | None) -> UpdateContext:
    state = search.state
    return UpdateContext(
        net=state.supernet,
        goal=search.needed_goal,
        objective=objective_of(search.settings, state.multiplier),
        settings=search.settings,
        seed=search.seed,
        number=state.alpha_steps,
        group=search.group,
        data=search.data,
        batch=batch,
        baseline=state.baseline,
        trials=state.trials,
        loss_scale=state.scaler.get_scale(),
    )


def _averaged(updates: Sequence[Update], shares: Sequence[float], group: ProcessGroup) -> Update:
    """Mean over the micro-batches of all workers, each weighted with its share of the batch."""
    first = updates[0]
    if first.grads is None:
        return first
    grads = [torch.zeros_like(grad) for grad in first.grads]
    sums = torch.zeros(2, dtype=torch.float64)
    for update, share in zip(updates, shares, strict=True):
        assert update.grads is not None, "a strategy returns gradients for every part or for none"
        for total, grad in zip(grads, update.grads, strict=True):
            total += grad * share
        loss = 0.0 if update.loss is None else float(update.loss)
        sums += share * sums.new_tensor([loss, update.reward or 0.0])
    sums = sums.to(grads[0].device)
    group.sum([*grads, sums])
    return Update(
        grads,
        None if first.loss is None else sums[0],
        None if first.reward is None else float(sums[1]),
        first.pairs,
    )


def _latency_grads(search: Search, update: Update) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of the accuracy and the latency term for every alpha, weighted by the objective.

    Rewards already include latency, unless the objective adds the exact gradient of latency.
    """
    assert update.grads is not None, "only updates with gradients are weighted"
    objective = objective_of(search.settings, search.state.multiplier)
    alphas = search.state.supernet.alphas()
    if update.loss is None and not objective.exact_latency:
        return update.grads, [torch.zeros_like(alpha) for alpha in alphas]
    loss = (update.loss if update.loss is not None else update.grads[0].new_zeros(())).detach()
    cross_entropy = loss.to(alphas[0].dtype).requires_grad_()
    expected = search.needed_goal.expected_ms([alpha.softmax(0) for alpha in alphas])
    total = objective.loss(cross_entropy, expected, search.needed_goal.budget_ms)
    slope, *latency = torch.autograd.grad(total, [cross_entropy, *alphas])
    return [slope * grad for grad in update.grads], latency


def _move_alphas(
    search: Search, accuracy: list[Tensor], latency: list[Tensor], pairs: list[Pair] | None
) -> None:
    """One Adam step, followed by the rescaling of pairs (if enabled) and the multiplier update."""
    state, schedule = search.state, search.schedule
    lr = schedule.alpha_lr(state.alpha_steps)
    latency_only = None
    if pairs is not None and search.settings.settle_pairs:
        latency_only = _stepped_copy(state, latency, lr)
    _step(
        state.supernet.alphas(),
        state.alpha_optimizer,
        [a + b for a, b in zip(accuracy, latency, strict=True)],
        lr,
    )
    if pairs is not None and latency_only is not None:
        for alpha, target, pair in zip(state.supernet.alphas(), latency_only, pairs, strict=True):
            rescale_pair(alpha, target, pair)
    expected_ms = float(search.needed_goal.expected_ms(state.supernet.probs()))
    objective = objective_of(search.settings, state.multiplier)
    state.multiplier = objective.next_multiplier(
        expected_ms, search.needed_goal.budget_ms, schedule.eta()
    )


def _stepped_copy(state: SearchState, grads: list[Tensor], lr: float) -> Sequence[Tensor]:
    """Architecture parameters after a step on `grads` alone; the originals do not change."""
    alphas, optimizer = copy.deepcopy((state.supernet.alphas(), state.alpha_optimizer))
    _step(alphas, optimizer, grads, lr)
    return alphas


def _step(
    alphas: Sequence[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    grads: Sequence[Tensor],
    lr: float,
) -> None:
    """Optimizer step that moves no parameter by more than twice the learning rate.

    Without the bound, an op whose first gradient comes at step t would move by lr * sqrt(t) at
    once: Adam's mean square of the gradients starts at 0 and adapts slowly (beta2 .999). The paper
    has no such bound.
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
