"""Searches with a part replaced by a made-up ground truth."""

from __future__ import annotations

import pytest
import torch

from nas_core.batch import SearchData
from nas_core.derive import best_within
from nas_core.objective import Accuracy, LatencyGoal
from nas_core.randomness import generator
from nas_core.search_settings import SearchSettings
from nas_core.strategy import UpdateContext
from nas_core.supernet import Supernet
from nas_core.workers import SingleProcess
from tests.benchmarks import oracle, tabular
from tests.benchmarks.truth import Truth
from tests.support.tiny import Images, noisy_table

GOOD = (1, 2, 1, 2)
"""Best network: the only one that is right at every site."""


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ground truth: accuracy grows with the number of sites shared with the best network."""
    right = [sum(a == b for a, b in zip(path, GOOD, strict=True)) for path in tabular.all_paths()]
    accuracy = torch.tensor([[20.0 * n, 20.0 * n] for n in right])
    losses = {name: 4.0 - n for name, n in zip(tabular.names(), right, strict=True)}
    truth = Truth(accuracy, torch.ones(len(right)))
    monkeypatch.setattr(oracle, "known", lambda: (truth, losses))


def scene(net: Supernet, number: int) -> UpdateContext:
    """Inputs of an update without a latency term."""
    table = noisy_table(tabular.SPACE, seed=0)
    return UpdateContext(
        net=net,
        goal=LatencyGoal(table, table.range_ms()[1], torch.device("cpu")),
        objective=Accuracy(),
        settings=SearchSettings(samples=10),
        seed=0,
        number=number,
        group=SingleProcess(),
        data=SearchData(Images(8, 4), Images(8, 4)),
        baseline=0.4,
    )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [oracle.TrueGradients(), oracle.TrueRewards()])
def test_with_the_truth_in_its_place_a_search_finds_the_best(strategy: oracle.TwoPath) -> None:
    net = Supernet(tabular.SPACE, generator(0, "oracle"))
    for number in range(400):
        update = strategy.update(scene(net, number))
        assert update.grads is not None
        with torch.no_grad():
            for alpha, grad in zip(net.alphas(), update.grads, strict=True):
                alpha -= 0.5 * grad
    table = noisy_table(tabular.SPACE, seed=0)
    result = best_within(net.log_probs(), table, table.range_ms()[1])
    assert tuple(result.path()) == GOOD


def test_a_network_is_looked_up_by_its_path() -> None:
    assert [oracle.place_of(path) for path in tabular.all_paths()[:3]] == [0, 1, 2]
    assert oracle._accuracy(GOOD) == 80.0
