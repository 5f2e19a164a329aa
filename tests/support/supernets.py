"""Supernets in float64, batches and update contexts that are small enough to enumerate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from nas_core.alpha_step import alpha_step
from nas_core.batch import Batch, SearchData
from nas_core.latency import LatencyTable
from nas_core.objective import LatencyGoal, objective_of
from nas_core.search_settings import SearchSettings
from nas_core.search_state import STRATEGIES, Search, SearchState
from nas_core.strategy import UpdateContext
from nas_core.supernet import Supernet
from nas_core.workers import ProcessGroup, SingleProcess
from tests.support.tiers import slow
from tests.support.tiny import K3, K5, K7, Images, images_and_labels, noisy_table, two_sites

CPU = torch.device("cpu")
QUICK = ("two_path", "random")
EVERY_STRATEGY = [*QUICK, *slow(*(name for name in STRATEGIES if name not in QUICK))]
"""All strategies as parameters of tests that run whole searches: one of each kind is not slow."""


def a_supernet(seed: int, ops: Sequence[str] = (K3, K5, K7, "skip")) -> Supernet:
    """A supernet in float64 whose alphas differ."""
    rng = torch.Generator().manual_seed(seed)
    net = Supernet(two_sites(ops), rng).double().train()
    for alpha in net.alphas():
        alpha.data.normal_(generator=rng)
    return net


def a_batch(seed: int) -> Batch:
    images, labels = images_and_labels(6, seed)
    return Batch(images.double(), labels, 6)


def a_goal(table: LatencyTable) -> LatencyGoal:
    """A goal in the middle of the space's latency range."""
    return LatencyGoal(table, sum(table.range_ms()) / 2, CPU)


def a_context(
    net: Supernet, batch: Batch | None, settings: SearchSettings | None = None, **facts: Any
) -> UpdateContext:
    """Context of an update; the table has random costs unless the test passes a goal."""
    settings = settings or SearchSettings()
    loader = Images(16, 8)
    values = {
        "goal": a_goal(noisy_table(net.space, 0)),
        "objective": objective_of(settings),
        "seed": 0,
        "number": 0,
        "group": SingleProcess(),
        "data": SearchData(loader, loader),
        **facts,
    }
    return UpdateContext(net=net, batch=batch, settings=settings, **values)


def a_search(
    state: SearchState,
    goal: LatencyGoal,
    settings: SearchSettings,
    seed: int = 0,
    group: ProcessGroup | None = None,
    data: SearchData | None = None,
) -> Search:
    loader = Images(16, 8)
    return Search(
        state, data or SearchData(loader, loader), goal, settings, seed, group or SingleProcess()
    )


def step_alphas(
    state: SearchState, goal: LatencyGoal, settings: SearchSettings, seed: int, batch: Batch
) -> None:
    alpha_step(a_search(state, goal, settings, seed), batch)


# The ops below are linear, and the head makes the cross entropy equal to any given loss.


class Matrix(nn.Module):
    """A linear op without weights."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("dc,nchw->ndhw", self.get_buffer("matrix"), x)


class LogitsOf(nn.Module):
    """Two logits for which the cross entropy of label 0 is `loss(x)`, a number above 0."""

    def __init__(self, loss: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: Tensor) -> Tensor:
        log_q = -self.loss(x)
        return torch.stack([log_q, torch.log(-torch.expm1(log_q))])[None]


def supernet_of(
    matrices: list[list[Tensor]], probs: list[list[float]], loss: Callable[[Tensor], Tensor]
) -> Supernet:
    """A supernet with these linear ops, op probabilities and loss."""
    space = two_sites((K3, K5, K7)[: len(probs[0])], sites=len(probs))
    net = Supernet(space, torch.Generator()).double().train()
    net.add_module("stem", nn.Identity())
    net.add_module("head", LogitsOf(loss))
    for site, ops in enumerate(matrices):
        for j, matrix in enumerate(ops):
            cast(nn.ModuleList, net.sites[site])[j] = Matrix(matrix)
        net.alphas()[site].data = torch.tensor(probs[site], dtype=torch.float64).log()
    return net


def random_matrices(seed: int, ops: int, sites: int = 2) -> list[list[Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    return [[torch.randn(2, 2, generator=rng).double() for _ in range(ops)] for _ in range(sites)]


def one_image(x: Tensor) -> Batch:
    return Batch(x, torch.tensor([0]), 1)
