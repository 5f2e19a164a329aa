"""Ranking quality of a supernet: its scores against the same networks trained from scratch.

A search assumes that the better of two networks with supernet weights is also the better one after
each is trained from scratch. Whether that holds depends on the space, the images and the length of
the warm-up. It can be measured: random networks are scored with supernet weights, then trained from
scratch, and the two orders are compared. Nothing here reads test images.
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
    average_statistics,
    averaged_copy,
    evaluate,
    refresh_statistics,
    start_training,
    train_to_the_end,
)
from nas_core.workers import ProcessGroup

ScoredBy = Literal["cross_entropy", "accuracy"]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation: Pearson's correlation of the ranks; ties share their mean rank.

    0 if one of the sequences is constant, where the correlation is undefined.

    Raises:
        ValueError: lengths differ, there are fewer than two values, or one is NaN.
    """
    # Number of smaller values minus number of larger ones: twice the rank, with a mean of 0.
    ranks = [_pair_signs(values).sum(1) for values in _checked(a, b)]
    return _cosine(*ranks)


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's rank correlation tau-b: concordant minus discordant pairs, normalized.

    The difference is divided by the geometric mean of the numbers of pairs that are not tied in
    either sequence; 0 if one of them is constant.

    Raises:
        ValueError: lengths differ, there are fewer than two values, or one is NaN.
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
    """Signs of all differences, (N, N); 0 for equal infinities."""
    larger = values[:, None] > values[None, :]
    return larger.double() - larger.T.double()


def _cosine(a: Tensor, b: Tensor) -> float:
    norm = float((a @ a).sqrt() * (b @ b).sqrt())
    return max(-1.0, min(1.0, float(a @ b) / norm)) if norm else 0.0


def plain_network(net: Supernet, path: Sequence[int]) -> nn.Module:
    """The network of a path, with copies of the supernet's weights and BatchNorm statistics."""
    ops = [net.op(site, choice) for site, choice in enumerate(path)]
    return copy.deepcopy(nn.Sequential(net.stem, *ops, net.head))


def score(
    net: Supernet,
    path: Sequence[int],
    refresh: Iterable[Batch],
    held_out: Iterable[Batch],
    group: ProcessGroup,
) -> Evaluation:
    """Loss and accuracy of a path's network with supernet weights. The supernet does not change.

    Args:
        net: the supernet.
        path: chosen op per site.
        refresh: training batches to recompute BatchNorm statistics from, since those of the
            supernet mix all its networks; if empty, the supernet's statistics are used.
        held_out: this worker's part of the images to score on.
        group: its workers average their statistics and add up their counts.
    """
    network, batches = plain_network(net, path), iter(refresh)
    first = next(batches, None)
    if first is not None:
        refresh_statistics(network, chain([first], batches))
    average_statistics(network, group)
    return evaluate(network.eval(), held_out, group)


def scoring_batches(
    data: SearchData, settings: SearchSettings
) -> tuple[Iterator[Batch], Iterator[Batch]]:
    """Batches for BatchNorm statistics and batches to score on; the same for every network."""
    held_out = data.architecture
    count = min(held_out.steps, -(-settings.score_images // settings.batch_size))
    refresh_count = -(-settings.bn_images // settings.batch_size)
    refresh = islice(data.weight.batches(0), refresh_count)
    return refresh, islice(held_out.batches(0), count)


def rerank(
    architectures: Sequence[Architecture], scores: Sequence[Evaluation], scored_by: ScoredBy
) -> list[Architecture]:
    """Architectures sorted by score, best first; ties keep their order."""
    goodness = [
        score.top1 if scored_by == "accuracy" else -_number_or_worst(score.loss) for score in scores
    ]
    order = sorted(range(len(scores)), key=lambda i: goodness[i], reverse=True)
    return [architectures[i] for i in order]


def _number_or_worst(loss: float) -> float:
    """`loss`, or infinity for NaN, so that such a network is ranked last."""
    return inf if isnan(loss) else loss


@dataclass(frozen=True)
class RankedNetwork:
    """Results of a network with supernet weights and after training from scratch.

    Both are measured on the architecture split.
    """

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
    """Rank correlations between two orders of the same networks, -1 to 1."""

    spearman: float
    kendall: float


@dataclass(frozen=True)
class Ranking:
    """Agreement of supernet scores with the accuracy of networks trained from scratch.

    The standard error of a Spearman correlation near 0 is about 1 / sqrt(N - 1): 0.13 for 60
    networks.
    """

    networks: tuple[RankedNetwork, ...]
    accuracy: Agreement
    """Agreement when networks are ordered by accuracy with supernet weights."""
    cross_entropy: Agreement
    """Agreement when networks are ordered by cross entropy with supernet weights."""

    @classmethod
    def of(cls, networks: Sequence[RankedNetwork]) -> Ranking:
        """Compute the agreements for these networks.

        Raises:
            ValueError: there are fewer than two networks.
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
        """The agreement for the score that networks are compared by."""
        return self.accuracy if scored_by == "accuracy" else self.cross_entropy


def ranking_paths(space: SearchSpace, count: int, seed: int) -> list[tuple[int, ...]]:
    """`count` distinct networks of a space, drawn uniformly.

    The first networks are the same whatever the count.

    Raises:
        ValueError: the space has fewer networks.
    """
    if count > space.size():
        raise ValueError(
            f"ranking_networks is {count}, but '{space.name}' has {space.size()} networks; "
            "expected that many at most"
        )
    choices, paths = [len(site.ops) for site in space.sites], dict[tuple[int, ...], None]()
    draw = 0
    while len(paths) < count:
        paths[tuple(uniform_path(choices, generator(seed, "ranking path", draw)))] = None
        draw += 1
    return list(paths)


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
    """Score and train `settings.ranking_networks` random networks, one after the other.

    Each is scored as in a search, trained from scratch with the `retrain` settings on the images
    that the supernet was trained on, and evaluated on the architecture split. The supernet does not
    change. A caller that stores the yielded results can continue later by passing them as `done`.

    Args:
        supernet: the supernet whose scores are examined.
        data: splits of the search; networks are scored on them.
        training: the weight split in batches of `retrain`.
        settings: number of networks, and how they are scored.
        retrain: recipe for training from scratch.
        seed: seed of the drawn networks and of their training.
        group: all its workers take part.
        done: results of earlier calls with the same seed, in order.

    Raises:
        ValueError: the space has fewer networks, or `done` does not match the networks of this
            seed.
    """
    paths = ranking_paths(supernet.space, settings.ranking_networks, seed)
    if [network.path for network in done] != paths[: len(done)]:
        raise ValueError(
            f"the {len(done)} networks that were ranked before are not the first that seed {seed} "
            "draws; expected those of the same space and seed, or none"
        )
    device = next(supernet.parameters()).device
    for path in paths[len(done) :]:
        predicted = score(supernet, path, *scoring_batches(data, settings), group)
        architecture = Architecture.from_path(supernet.space, list(path))
        state = trained_alone(architecture, training, retrain, seed, device, group)
        _, held_out = scoring_batches(data, settings)
        actual = evaluate(averaged_copy(state.network, group), held_out, group)
        yield RankedNetwork(path, predicted.top1, predicted.loss, actual.top1, actual.loss)


def trained_alone(
    architecture: Architecture,
    training: Loader,
    retrain: RetrainSettings,
    seed: int,
    device: torch.device,
    group: ProcessGroup,
) -> TrainState:
    """Train a network from scratch on the weight split, then recompute its BatchNorm statistics.

    Args:
        architecture: the network.
        training: the weight split in batches of `retrain`.
        retrain: training recipe.
        seed: seed of the initial weights and of dropout.
        device: device to train on.
        group: all its workers train the network together.
    """
    state = start_training(architecture, retrain, seed, device)
    train_to_the_end(state, training, retrain, seed, group)
    refresh_statistics(state.network, islice(training.batches(0), REFRESH_BATCHES))
    return state
