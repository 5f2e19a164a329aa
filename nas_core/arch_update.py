"""Updates of the architecture parameters from one batch of the architecture split.

Source: ProxylessNAS, section 3.2.1. The estimate is straight-through: dL/dg_j is taken at the one
path that ran, so it equals the gradient of the expected loss only where the loss is affine in a
site's output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_core.gates import (
    Pair,
    alpha_grad,
    gate_grad,
    sample_active,
    sample_pairs,
    undo_pair_shift,
)
from nas_core.supernet import Supernet


@dataclass(frozen=True)
class AlphaGrads:
    """What one update found."""

    grads: list[Tensor]
    """Gradient of the loss for each site's alpha, shapes as in `net.alphas()`."""
    pairs: list[Pair]
    """The two ops per site that were compared."""
    loss: Tensor
    """Cross entropy of the path that ran, detached."""


class TwoPath:
    """Compare two ops per site: one runs with gradient, one beside it without (Proxyless-G)."""

    def grads(
        self,
        net: Supernet,
        images: Tensor,
        labels: Tensor,
        pair_rng: torch.Generator,
        active_rng: torch.Generator,
    ) -> AlphaGrads:
        """Gradients of the cross entropy of one batch. Changes no weight, alpha or buffer.

        Args:
            net: in training mode; only its probabilities decide what is drawn.
            images: (N, C, H, W) of the architecture split.
            labels: (N,).
            pair_rng: draws the pairs; the same on all workers, so that they move the same alphas.
            active_rng: draws which op of a pair runs; each worker's own.
        """
        alphas = net.alphas()
        pairs = sample_pairs(net.probs(), pair_rng)
        active = sample_active(alphas, pairs, active_rng)
        path = [pair[a] for pair, a in zip(pairs, active, strict=True)]
        beside = [[pair[1 - a]] for pair, a in zip(pairs, active, strict=True)]
        with net.frozen():
            trace = net.trace(images, path, beside)
            loss = F.cross_entropy(trace.logits, labels)
            output_grads = torch.autograd.grad(loss, trace.outputs)
        grads = [
            _pair_grad(alpha.detach(), pair, a, grad, output, other[0])
            for alpha, pair, a, grad, output, other in zip(
                alphas, pairs, active, output_grads, trace.outputs, trace.candidates, strict=True
            )
        ]
        return AlphaGrads(grads, pairs, loss.detach())

    def settle(self, net: Supernet, before: list[Tensor], pairs: list[Pair]) -> None:
        """After the optimizer step: give every pair the share of probability that it had."""
        for alpha, old, pair in zip(net.alphas(), before, pairs, strict=True):
            undo_pair_shift(alpha, old, pair)


@torch.no_grad()
def _pair_grad(
    alpha: Tensor, pair: Pair, active: int, output_grad: Tensor, ran: Tensor, beside: Tensor
) -> Tensor:
    """Gradient for one site's alpha, zero outside the pair."""
    gates = [gate_grad(output_grad, ran), gate_grad(output_grad, beside)]
    ordered = torch.stack(gates if active == 0 else gates[::-1])
    members = list(pair)
    grad = torch.zeros_like(alpha)
    grad[members] = alpha_grad(ordered, alpha[members])
    return grad


ARCH_UPDATES: dict[str, type[TwoPath]] = {"two_path": TwoPath}
