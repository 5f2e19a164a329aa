"""Updates of the architecture parameters: the strategies that learn them on the supernet.

    two_path    Proxyless-G: two ops per site are compared, one runs with gradient (section 3.2.1)
    full_path   Proxyless-G: all ops per site, one runs with gradient, the others one at a time
    reinforce   Proxyless-R: sampled networks are scored, none runs with gradient (section 3.3.2)
    darts       the softmax mixture of all ops, in weight steps too; the memory of all of them

The gate gradient of `two_path` and `full_path` is straight-through: dL/dg_j is taken at the one
path that ran, so it equals the gradient of the expected loss only where the loss is affine in a
site's output. `reinforce` is unbiased: its baseline never contains the reward it is subtracted
from.
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
    """Compare two ops per site: one runs with gradient, one beside it without.

    The pairs are equal on all workers, so that they move the same alphas; which op of a pair runs
    is each worker's own draw.
    """

    weights: Literal["path"] = "path"

    def update(self, scene: UpdateContext) -> Update:
        """Gradient of the cross entropy, zero outside the pairs."""
        net = scene.net
        pairs = sample_pairs(net.probs(), scene.common_rng("pairs"))
        active = sample_active(net.alphas(), pairs, scene.own_rng("active"))
        path = [pair[a] for pair, a in zip(pairs, active, strict=True)]
        gates, loss = _gate_grads(scene, path, pairs)
        grads = []
        for alpha, pair, found in zip(net.alphas(), pairs, gates, strict=True):
            grad, members = torch.zeros_like(alpha), list(pair)
            grad[members] = alpha_grad(found, alpha.detach()[members])
            grads.append(grad)
        return Update(grads, loss, pairs=pairs)


class FullPath:
    """Compare all ops of every site with the one that runs; each worker draws its own path."""

    weights: Literal["path"] = "path"

    def update(self, scene: UpdateContext) -> Update:
        """Gradient of the cross entropy for all alphas."""
        net = scene.net
        path = sample_path(net.probs(), scene.own_rng("active"))
        gates, loss = _gate_grads(scene, path, [range(k) for k in net.choices()])
        grads = [alpha_grad(g, a.detach()) for g, a in zip(gates, net.alphas(), strict=True)]
        return Update(grads, loss)


class Darts:
    """All ops at once, weighted by their probabilities (first-order DARTS)."""

    weights: Literal["mixture"] = "mixture"

    def update(self, scene: UpdateContext) -> Update:
        """Gradient of the cross entropy through the mixture."""
        net, batch = scene.net, _batch_of(scene)
        alphas = net.alphas()
        with net.frozen():
            logits = net(batch.images, [alpha.softmax(0) for alpha in alphas])
            loss = F.cross_entropy(logits, batch.labels)
            grads = torch.autograd.grad(loss * scene.loss_scale, alphas)
        return Update([grad / scene.loss_scale for grad in grads], loss.detach())


class Reinforce:
    """Score sampled networks; raise the probability of those that beat the average so far.

    Every worker draws its own networks. The first update only makes the average: a baseline that
    contains the reward it is subtracted from would bias the estimate.
    """

    weights: Literal["path"] = "path"

    def update(self, scene: UpdateContext) -> Update:
        """Gradient of minus the expected reward."""
        probs, rng = scene.net.probs(), scene.own_rng("networks")
        paths = [sample_path(probs, rng) for _ in range(scene.settings.samples)]
        rewards = self.rewards(scene, paths)
        return Update(policy_grads(probs, paths, rewards, scene.baseline), reward=_mean(rewards))

    @torch.no_grad()
    def rewards(self, scene: UpdateContext, paths: Sequence[list[int]]) -> list[float]:
        """Of each network, on this worker's images, with the statistics of the batch."""
        batch, goal = _batch_of(scene), scene.goal
        with scene.net.frozen():
            hits = [
                (scene.net(batch.images, path).argmax(1) == batch.labels).double().mean()
                for path in paths
            ]
        return [
            scene.objective.reward(accuracy, goal.path_ms(path), goal.budget_ms)
            for accuracy, path in zip(torch.stack(hits).tolist(), paths, strict=True)
        ]


def policy_grads(
    probs: Sequence[Tensor],
    paths: Sequence[Sequence[int]],
    rewards: Sequence[float],
    baseline: float | None,
) -> list[Tensor]:
    """Mean over networks of (reward - baseline) * d(-log p), per site of shape (K,).

    Zero while there is no baseline.
    """
    grads = [torch.zeros_like(p) for p in probs]
    if baseline is None:
        return grads
    for path, reward in zip(paths, rewards, strict=True):
        for grad, p, choice in zip(grads, probs, path, strict=True):
            grad -= (reward - baseline) / len(paths) * log_prob_grad(p, choice)
    return grads


def _batch_of(scene: UpdateContext) -> Batch:
    assert scene.batch is not None, "strategies that learn from a batch are given one"
    return scene.batch


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _gate_grads(
    scene: UpdateContext, path: Sequence[int], compared: Sequence[Sequence[int]]
) -> tuple[list[Tensor], Tensor]:
    """dL/dg of the ops `compared[site]`, in their order, and the loss, when `path` runs.

    The other ops run one at a time, without gradient, once that of the output is known: beside the
    path, one op of one site is in memory.
    """
    net, batch, scale = scene.net, _batch_of(scene), scene.loss_scale
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
            found = [gate_grad(grad, output) / scale for output in outputs]
            gates.append(torch.stack(found))
    return gates, loss.detach()
