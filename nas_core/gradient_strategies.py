"""Gradient strategies: updates that learn the architecture parameters on the supernet.

    two_path    Proxyless-G: two ops per site are compared, one runs with gradient (section 3.2.1)
    full_path   Proxyless-G: all ops per site, one runs with gradient, the others one at a time
    reinforce   Proxyless-R: sampled networks are scored, none runs with gradient (section 3.3.2)
    darts       the softmax mixture of all ops, also in weight steps; needs memory for all of them

The gate gradient of `two_path` and `full_path` is a straight-through estimate: dL/dg_j is taken at
the one path that ran, so it equals the gradient of the expected loss only if the loss is affine in
the output of the site. `reinforce` is unbiased: its baseline never contains the reward that it is
subtracted from.
Source: Cai, Zhu & Han, "ProxylessNAS" (ICLR 2019); Liu, Simonyan & Yang, "DARTS" (ICLR 2019).
Shapes: K = candidate ops at a site.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_core.batch import Batch
from nas_core.gates import (
    alpha_grad,
    gate_grad,
    log_prob_grad,
    sample_active,
    sample_pairs,
    sample_path,
)
from nas_core.strategy import Update, UpdateContext


class TwoPath:
    """Compare two ops per site: one runs with gradient, the other without.

    The pairs are equal on all workers, so that all workers update the same alphas; each worker
    draws for itself which op of a pair runs.
    """

    weights: Literal["path"] = "path"

    def update(self, context: UpdateContext) -> Update:
        """Gradient of the cross entropy, zero outside the pairs."""
        net = context.net
        pairs = sample_pairs(net.probs(), context.common_rng("pairs"))
        active = sample_active(net.alphas(), pairs, context.own_rng("active"))
        path = [pair[a] for pair, a in zip(pairs, active, strict=True)]
        gates, loss = _gate_grads(context, path, pairs)
        grads = []
        for alpha, pair, gate in zip(net.alphas(), pairs, gates, strict=True):
            grad, members = torch.zeros_like(alpha), list(pair)
            grad[members] = alpha_grad(gate, alpha.detach()[members])
            grads.append(grad)
        return Update(grads, loss, pairs=pairs)


class FullPath:
    """Compare all ops of every site with the one that runs; each worker draws its own path."""

    weights: Literal["path"] = "path"

    def update(self, context: UpdateContext) -> Update:
        """Gradient of the cross entropy for all alphas."""
        net = context.net
        path = sample_path(net.probs(), context.own_rng("active"))
        gates, loss = _gate_grads(context, path, [range(k) for k in net.choices()])
        grads = [alpha_grad(g, a.detach()) for g, a in zip(gates, net.alphas(), strict=True)]
        return Update(grads, loss)


class Darts:
    """Run all ops at once, weighted by their probabilities (first-order DARTS)."""

    weights: Literal["mixture"] = "mixture"

    def update(self, context: UpdateContext) -> Update:
        """Gradient of the cross entropy through the mixture."""
        net, batch = context.net, _batch_of(context)
        alphas = net.alphas()
        with net.frozen():
            logits = net(batch.images, [alpha.softmax(0) for alpha in alphas])
            loss = F.cross_entropy(logits, batch.labels)
            grads = torch.autograd.grad(loss * context.loss_scale, alphas)
        return Update([grad / context.loss_scale for grad in grads], loss.detach())


class Reinforce:
    """Score sampled networks; raise the probability of those that beat the average so far.

    Every worker draws its own networks. The first update only initializes the average: a baseline
    that contains the reward it is subtracted from would bias the estimate.
    """

    weights: Literal["path"] = "path"

    def update(self, context: UpdateContext) -> Update:
        """Gradient of the negative expected reward."""
        probs, rng = context.net.probs(), context.own_rng("networks")
        paths = [sample_path(probs, rng) for _ in range(context.settings.samples)]
        rewards = self.rewards(context, paths)
        return Update(policy_grads(probs, paths, rewards, context.baseline), reward=_mean(rewards))

    @torch.no_grad()
    def rewards(self, context: UpdateContext, paths: Sequence[list[int]]) -> list[float]:
        """Rewards of networks on this worker's images, with BatchNorm statistics of the batch."""
        batch, goal = _batch_of(context), context.goal
        with context.net.frozen():
            hits = [
                (context.net(batch.images, path).argmax(1) == batch.labels).double().mean()
                for path in paths
            ]
        return [
            context.objective.reward(accuracy, goal.path_ms(path), goal.budget_ms)
            for accuracy, path in zip(torch.stack(hits).tolist(), paths, strict=True)
        ]


def policy_grads(
    probs: Sequence[Tensor],
    paths: Sequence[Sequence[int]],
    rewards: Sequence[float],
    baseline: float | None,
) -> list[Tensor]:
    """Mean over the networks of (reward - baseline) * d(-log p), one tensor of shape (K,) per site.

    All gradients are zero as long as there is no baseline.
    """
    grads = [torch.zeros_like(p) for p in probs]
    if baseline is None:
        return grads
    for path, reward in zip(paths, rewards, strict=True):
        for grad, p, choice in zip(grads, probs, path, strict=True):
            grad -= (reward - baseline) / len(paths) * log_prob_grad(p, choice)
    return grads


def _batch_of(context: UpdateContext) -> Batch:
    assert context.batch is not None, "gradient strategies need a batch"
    return context.batch


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _gate_grads(
    context: UpdateContext, path: Sequence[int], compared: Sequence[Sequence[int]]
) -> tuple[list[Tensor], Tensor]:
    """dL/dg of the ops in `compared[site]`, in their order, and the loss, when `path` runs.

    The other ops run afterwards without gradient, one at a time, once the gradient of the site's
    output is known: memory holds the path and one further op.
    """
    net, batch, scale = context.net, _batch_of(context), context.loss_scale
    with net.frozen():
        trace = net.trace(batch.images, path)
        loss = F.cross_entropy(trace.logits, batch.labels)
        output_grads = torch.autograd.grad(loss * scale, trace.outputs)
        gates = []
        for site, (choices, x, grad) in enumerate(
            zip(compared, trace.inputs, output_grads, strict=True)
        ):
            outputs = (
                trace.outputs[site].detach() if j == path[site] else net.candidate(site, j, x)
                for j in choices
            )
            gates.append(torch.stack([gate_grad(grad, output) / scale for output in outputs]))
    return gates, loss.detach()
