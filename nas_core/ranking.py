"""How well a supernet ranks networks: its scores against the same networks trained alone.

A search trusts that the better of two networks with supernet weights is the better one when each is
trained alone. Whether that holds depends on the space, the images and the length of the warm-up, so
it can be measured: some networks are drawn, scored with supernet weights, trained alone, and the
two orders are compared. Nothing here reads test images.
Shapes: N = networks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from math import inf, isnan
from typing import Literal

import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Loader, SearchData
from nas_core.gates import uniform_path
from nas_core.progress import Evaluation
from nas_core.randomness import generator
from nas_core.search_settings import SearchSettings
from nas_core.settings import RetrainSettings
from nas_core.space import SearchSpace
from nas_core.supernet import Supernet
from nas_core.train import (
    REFRESH_BATCHES,
    TrainState,
    averaged_copy,
    evaluate,
    refresh_statistics,
    start_training,
    train_to_the_end,
)
from nas_core.workers import ProcessGroup

ScoredBy = Literal["cross_entropy", "accuracy"]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation: Pearson's correlation of the ranks, equal values sharing their mean rank.

    0 where one of them is constant: it is not defined there, and orders nothing.

    Raises:
        ValueError: lengths differ, there are fewer than two values, or one is not a number.
    """
    # How many values are below, less how many are above: twice the rank, with a mean of 0.
    ranks = [_pair_signs(values).sum(1) for values in _checked(a, b)]
    return _cosine(*ranks)


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation tau-b: pairs in the same order less those in opposite order.

    Divided by the geometric mean of the pairs that are not tied in one and in the other; 0 where
    one of them is constant.

    Raises:
        ValueError: lengths differ, there are fewer than two values, or one is not a number.
    """
    return _cosine(*(_pair_signs(values).flatten() for values in _checked(a, b)))


def _checked(a: Sequence[float], b: Sequence[float]) -> tuple[Tensor, Tensor]:
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(
            f"a rank correlation of {len(a)} and {len(b)} values; expected as many, two or more"
        )
    if any(isnan(value) for value in (*a, *b)):
        raise ValueError("a rank correlation of values that are not numbers (nan)")
    return torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)


def _pair_signs(values: Tensor) -> Tensor:
    """(N, N): 1 where the first is larger, -1 where the second is. Infinite values may be equal."""
    larger = values[:, None] > values[None, :]
    return larger.double() - larger.T.double()


def _cosine(a: Tensor, b: Tensor) -> float:
    length = float((a @ a).sqrt() * (b @ b).sqrt())
    return max(-1.0, min(1.0, float(a @ b) / length)) if length else 0.0


def plain_network(net: Supernet, path: Sequence[int]) -> nn.Module:
    """The network of a path with copies of the supernet's weights and BatchNorm statistics."""
    ops = [net.op(site, choice) for site, choice in enumerate(path)]
    return copy.deepcopy(nn.Sequential(net.stem, *ops, net.head))


def score(
    net: Supernet,
    path: Sequence[int],
    refresh: Iterable[Batch],
    held_out: Iterable[Batch],
    group: ProcessGroup,
) -> Evaluation:
    """How good the network of a path is with supernet weights. The supernet does not change.

    Args:
        net: the supernet.
        path: chosen op per site.
        refresh: training batches from which BatchNorm statistics are taken anew, since those of the
            supernet belong to all its networks at once; none: the supernet's are kept.
        held_out: this worker's part of the images to score on.
        group: statistics are averaged and images counted over its workers.
    """
    network, batches = plain_network(net, path), iter(refresh)
    first = next(batches, None)
    if first is not None:
        refresh_statistics(network, chain([first], batches))
    return evaluate(averaged_copy(network, group), held_out, group)


def scoring_batches(
    data: SearchData, settings: SearchSettings
) -> tuple[Iterator[Batch], Iterator[Batch]]:
    """Batches for BatchNorm statistics, and those to score on: the same for every network."""
    held_out = data.architecture
    count = min(held_out.steps, -(-settings.score_images // settings.batch_size))
    refresh_count = -(-settings.bn_images // settings.batch_size)
    refresh = islice(data.weight.batches(0), refresh_count)
    return refresh, islice(held_out.batches(0), count)


def rerank(
    architectures: Sequence[Architecture], scores: Sequence[Evaluation], scored_by: ScoredBy
) -> list[Architecture]:
    """Architectures by their scores, best first; of equals the one that stood first."""
    goodness = [
        one.top1 if scored_by == "accuracy" else -_number_or_worst(one.loss) for one in scores
    ]
    order = sorted(range(len(scores)), key=lambda i: goodness[i], reverse=True)
    return [architectures[i] for i in order]


def _number_or_worst(loss: float) -> float:
    """A network that has no loss (nan) comes last."""
    return inf if isnan(loss) else loss


@dataclass(frozen=True)
class RankedNetwork:
    """A network with supernet weights and trained alone, both on the architecture part."""

    path: tuple[int, ...]
    """Chosen op per site."""
    supernet_accuracy: float
    """Top-1, 0 to 1."""
    supernet_loss: float
    """Cross entropy."""
    alone_accuracy: float
    alone_loss: float


@dataclass(frozen=True)
class Agreement:
    """How far two orders of the same networks agree, -1 to 1."""

    spearman: float
    kendall: float


@dataclass(frozen=True)
class Ranking:
    """What supernet weights foretell of the accuracy that networks reach alone.

    The standard error of a Spearman is about 1 / sqrt(N - 1) near 0: 0.13 for 60 networks.
    """

    networks: tuple[RankedNetwork, ...]
    accuracy: Agreement
    """Networks ordered by accuracy with supernet weights."""
    cross_entropy: Agreement
    """Networks ordered by cross entropy with supernet weights."""

    @classmethod
    def of(cls, networks: Sequence[RankedNetwork]) -> Ranking:
        """The ranking that these networks show.

        Raises:
            ValueError: there are fewer than two.
        """
        alone = [network.alone_accuracy for network in networks]
        by_accuracy = [network.supernet_accuracy for network in networks]
        by_loss = [-_number_or_worst(network.supernet_loss) for network in networks]
        return cls(
            tuple(networks),
            Agreement(spearman(by_accuracy, alone), kendall(by_accuracy, alone)),
            Agreement(spearman(by_loss, alone), kendall(by_loss, alone)),
        )

    def by(self, scored_by: ScoredBy) -> Agreement:
        """The one that counts where networks are compared by `scored_by`."""
        return self.accuracy if scored_by == "accuracy" else self.cross_entropy


def ranking_paths(space: SearchSpace, count: int, seed: int) -> list[tuple[int, ...]]:
    """Different networks of a space, all equally likely. A larger count goes on where one ended.

    Raises:
        ValueError: the space has fewer networks.
    """
    if count > space.size():
        raise ValueError(
            f"ranking_networks is {count}, but '{space.name}' has {space.size()} networks; "
            "expected that many at most"
        )
    choices, found = [len(site.ops) for site in space.sites], dict[tuple[int, ...], None]()
    draw = 0
    while len(found) < count:
        found[tuple(uniform_path(choices, generator(seed, "ranking path", draw)))] = None
        draw += 1
    return list(found)


def measure_ranking(
    supernet: Supernet,
    data: SearchData,
    training: Loader,
    settings: SearchSettings,
    retrain: RetrainSettings,
    seed: int,
    group: ProcessGroup,
    done: Sequence[RankedNetwork] = (),
) -> Iterator[RankedNetwork]:
    """Score and train alone `settings.ranking_networks` random networks, one after the other.

    Each is scored as a search scores it, trained as `retrain` says on the images that the supernet
    was trained on, and evaluated on the architecture part. The supernet does not change. A caller
    that keeps what is yielded can go on later: `done` are the first networks of the same seed.

    Args:
        supernet: whose scores are examined.
        data: of the search: networks are scored on it.
        training: the weight part in batches of `retrain`.
        settings: how many networks, and how they are scored.
        retrain: how they are trained alone.
        seed: of the networks that are drawn, and of their training.
        group: takes part in all of it.
        done: networks that were ranked before.

    Raises:
        ValueError: the space has fewer networks, or `done` are others than this seed draws.
    """
    paths = ranking_paths(supernet.space, settings.ranking_networks, seed)
    if [network.path for network in done] != paths[: len(done)]:
        raise ValueError(
            f"the {len(done)} networks that were ranked before are not the first that seed {seed} "
            "draws; expected those of the same space and seed, or none"
        )
    device = next(supernet.parameters()).device
    for path in paths[len(done) :]:
        foretold = score(supernet, path, *scoring_batches(data, settings), group)
        architecture = Architecture.from_path(supernet.space, list(path))
        state = trained_alone(architecture, training, retrain, seed, device, group)
        _, held_out = scoring_batches(data, settings)
        alone = evaluate(averaged_copy(state.network, group), held_out, group)
        yield RankedNetwork(path, foretold.top1, foretold.loss, alone.top1, alone.loss)


def trained_alone(
    architecture: Architecture,
    training: Loader,
    retrain: RetrainSettings,
    seed: int,
    device: torch.device,
    group: ProcessGroup,
) -> TrainState:
    """A network trained from scratch on the weight part, its BatchNorm statistics taken anew.

    Args:
        architecture: the network.
        training: the weight part in batches of `retrain`.
        retrain: how it is trained.
        seed: of its weights and what it drops.
        device: where it is trained.
        group: trains it together.
    """
    state = start_training(architecture, retrain, seed, device)
    train_to_the_end(state, training, retrain, seed, group)
    refresh_statistics(state.network, islice(training.batches(0), REFRESH_BATCHES))
    return state
