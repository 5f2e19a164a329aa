"""Binary gates: run one candidate op per site, keep a gradient for every op.

Source: Cai, Zhu & Han, "ProxylessNAS" (ICLR 2019), section 3.2.
Random draws are made on the CPU, so that they do not depend on the device of the probabilities.
Shapes: K = candidate ops at a site.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas_core.randomness import generator

Pair = tuple[int, int]
"""Indices of two candidate ops of one site."""


def sample_path(probs: Sequence[Tensor], rng: torch.Generator) -> list[int]:
    """One op per site, drawn from its probabilities, each of shape (K,)."""
    return [int(torch.multinomial(p.cpu(), 1, generator=rng)) for p in probs]


def uniform_path(choices: Sequence[int], rng: torch.Generator) -> list[int]:
    """One op per site, all equally likely. `choices`: number of candidate ops per site."""
    return [int(torch.randint(k, (1,), generator=rng)) for k in choices]


def fair_path(choices: Sequence[int], step: int, seed: int) -> list[int]:
    """One op per site, such that every op of a site is drawn exactly once every K steps (FairNAS).

    Each round of K steps uses a new random permutation of the site's ops. Deviation: FairNAS sums
    the gradients of the K paths of a round and then makes one optimizer step; here, every path has
    its own optimizer step. This is cheaper, but the fairness is weaker.
    """
    path = []
    for site, k in enumerate(choices):
        this_round = generator(seed, "fair path", site, step // k)
        path.append(int(torch.randperm(k, generator=this_round)[step % k]))
    return path


def sample_pairs(probs: Sequence[Tensor], rng: torch.Generator) -> list[Pair]:
    """Two distinct ops per site, drawn one after the other without replacement (section 3.2.1)."""
    pairs = []
    for p in probs:
        first, second = torch.multinomial(p.cpu(), 2, replacement=False, generator=rng).tolist()
        pairs.append((first, second))
    return pairs


def sample_active(
    alphas: Sequence[Tensor], pairs: Sequence[Pair], rng: torch.Generator
) -> list[int]:
    """Active op of each pair, 0 or 1, drawn from the softmax over the pair."""
    return [
        int(torch.multinomial(alpha.detach().cpu()[list(pair)].softmax(0), 1, generator=rng))
        for alpha, pair in zip(alphas, pairs, strict=True)
    ]


def alpha_grad(gate_grad: Tensor, alpha: Tensor) -> Tensor:
    """Gradient of the architecture parameters of one site, from that of its gates.

    dL/dalpha_i = sum_j dL/dg_j * p_j * (delta_ij - p_i),  p = softmax(alpha)   (section 3.2.1)

    The double sum collapses to p * (g - <g, p>), which is what is computed.

    Args:
        gate_grad: dL/dg, shape (K,).
        alpha: architecture parameters, shape (K,).

    Returns:
        dL/dalpha, shape (K,). Its entries sum to zero: softmax ignores a shift of alpha.

    Raises:
        ValueError: the two shapes differ.
    """
    if gate_grad.shape != alpha.shape:
        raise ValueError(
            f"gate_grad has shape {tuple(gate_grad.shape)} but alpha has shape "
            f"{tuple(alpha.shape)}; a site needs one gate per candidate op"
        )
    p = alpha.softmax(dim=0)
    # Not `gate_grad @ p`: autocast would compute it in half precision.
    return p * (gate_grad - (gate_grad * p).sum())


def gate_grad(output_grad: Tensor, op_output: Tensor) -> Tensor:
    """Gradient of the gate of op j, a scalar: dL/dg_j = <dL/d(site output), o_j(x)>.

    Both arguments have the shape of the site's output.
    """
    # The sum has one term per element of the output: too many for half precision.
    if output_grad.dtype in (torch.float16, torch.bfloat16):
        output_grad, op_output = output_grad.float(), op_output.float()
    return (output_grad * op_output).sum()


def log_prob_grad(probs: Tensor, choice: int) -> Tensor:
    """Gradient of log p(choice) with respect to alpha: onehot(choice) - p, shape (K,).

    `probs` is p = softmax(alpha), shape (K,).
    """
    grad = -probs
    grad[choice] += 1
    return grad


@torch.no_grad()
def rescale_pair(alpha: Tensor, target: Tensor, pair: Pair) -> None:
    """Shift the pair of `alpha` in place so that its sum of exponentials equals that in `target`.

    An update of the pair changes its sum of exponentials. Without the shift, ops outside the pair
    would gain or lose probability (section 3.2.1, "rescale").

    Args:
        alpha: architecture parameters of a site after an update, shape (K,).
        target: the parameters after an update on the latency term alone, shape (K,); without a
            latency term, the parameters before the update.
        pair: the ops that were compared.
    """
    members = list(pair)
    alpha[members] -= alpha[members].logsumexp(0) - target[members].logsumexp(0)
