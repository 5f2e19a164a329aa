"""A search of architecture parameters only, with latencies of the Pixel 1.

The loss decreases with every multiply-accumulate; its gradients have normal noise that is larger
than they are.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor, nn

from nas_core.alpha_step import alpha_step
from nas_core.architecture import count_macs
from nas_core.latency import LatencyTable
from nas_core.objective import LatencyGoal
from nas_core.ops import build_op
from nas_core.published import pixel1
from nas_core.search import latency_note
from nas_core.search_settings import ObjectiveName, SearchSettings
from nas_core.search_state import STRATEGIES, Search, SearchState
from nas_core.space import SearchSpace, proxyless_imagenet
from nas_core.strategy import Update, UpdateContext
from nas_core.workers import SingleProcess

PIXEL1 = pixel1.table(proxyless_imagenet())
STEPS, LAST, NOISE = 2500, 200, 0.01


class Alphas:
    """The part of a supernet that a search of alphas needs, without weights."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        sizes = [len(site.ops) for site in space.sites]
        self._alphas = [nn.Parameter(1e-3 * torch.randn(k, generator=rng)) for k in sizes]

    def alphas(self) -> list[nn.Parameter]:
        return self._alphas

    def probs(self) -> list[Tensor]:
        return [alpha.detach().softmax(0) for alpha in self._alphas]


@cache
def macs(space: SearchSpace) -> list[Tensor]:
    """Multiply-accumulates of every op at every site; a skip has none."""
    return [
        torch.tensor(
            [
                float(
                    count_macs(
                        lambda op=op, site=site: build_op(op, site.op_shape(1e-3)),  # type: ignore[misc]
                        site.in_channels,
                        site.resolution,
                    )
                )
                for op in site.ops
            ]
        )
        for site in space.sites
    ]


def search_of_alphas(
    c: float,
    budget_ms: float,
    objective: ObjectiveName,
    *,
    steps: int = STEPS,
    noise: float = NOISE,
    seed: int = 0,
    table: LatencyTable = PIXEL1,
) -> tuple[float, str | None]:
    """Search with a loss of `c * (1 - E[MACs] / MACs of the largest network)`.

    Returns:
        Mean expected latency of the last updates (200 of 2,500), and the search's latency note.
    """
    costs = macs(table.space)
    largest = sum(row.max() for row in costs)

    class Synthetic:
        weights: Literal["path"] = "path"

        def update(self, context: UpdateContext) -> Update:
            alphas, rng = context.net.alphas(), context.own_rng("noise")
            expected = sum(a.softmax(0) @ row for a, row in zip(alphas, costs, strict=True))
            loss = c * (1 - expected / largest)
            assert isinstance(loss, Tensor)
            grads = torch.autograd.grad(loss, alphas)
            noisy = [g + noise * torch.randn(g.shape, generator=rng) for g in grads]
            return Update(noisy, loss.detach())

    settings = SearchSettings(
        objective=objective, warmup_epochs=0, hold_epochs=0, epochs=1, alpha_every=1
    )
    net: Any = Alphas(table.space, seed)
    optimizer = torch.optim.Adam(net.alphas(), betas=(0.0, 0.999))
    state = SearchState(net, optimizer, optimizer)
    goal = LatencyGoal(table, budget_ms, torch.device("cpu"))
    data: Any = SimpleNamespace(weight=SimpleNamespace(steps=steps))
    search, latencies = Search(state, data, goal, settings, seed, SingleProcess()), []
    with patch.dict(STRATEGIES, two_path=Synthetic):
        for _ in range(steps):
            alpha_step(search, None)
            latencies.append(float(goal.expected_ms(net.probs())))
    last = latencies[-max(1, steps * LAST // STEPS) :]
    return sum(last) / len(last), latency_note(state, goal, settings)
