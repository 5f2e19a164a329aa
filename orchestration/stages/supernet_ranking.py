"""Stage: evaluate how well the supernet of a search ranks networks, if the job requests it.

Each network is stored as soon as it is ranked. A case that was stopped resumes with the next one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from nas_core.batch import Loader
from nas_core.ranking import RankedNetwork, Ranking, measure_ranking
from orchestration.config.storage_layout import RANKING_FILE, RANKING_FORMAT
from orchestration.stages.context import WorkerContext
from orchestration.stages.network_log import NetworkLog, from_values, to_values
from orchestration.stages.search import Searched, search_parts


@dataclass(frozen=True)
class Ranked:
    """A ranked network, and how long it took."""

    network: RankedNetwork
    seconds: float
    """Time to score the network, train it from scratch and evaluate it."""

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON, with None instead of NaN."""
        return {**to_values(self.network), "seconds": self.seconds}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Ranked:
        """The inverse of `to_dict`."""
        fields = from_values(values)
        return cls(seconds=fields.pop("seconds"), network=RankedNetwork(**fields))


def measured_ranking(context: WorkerContext, searched: Searched) -> dict[str, Any] | None:
    """Rank `search.ranking_networks` random networks. Called by all workers.

    A network is scored with the weights of the supernet and then trained from scratch; see
    `nas_core/ranking.py`.

    Returns:
        The `ranking` entry of the result: rank correlations, the time, and all networks. None if
        the job requests no ranking.
    """
    count = context.task.job.search.ranking_networks
    if count == 0:
        return None
    done = _load(context)
    with context.group.stoppable():  # A stop loses only the network in training.
        training = _training(context)
        for ranked in _ranked(context, searched, training, [ranked.network for ranked in done]):
            done.append(ranked)
            _store(context, done)
            _report(context, done, training.steps)
    ranking = Ranking.of([ranked.network for ranked in done])
    return {
        "accuracy": asdict(ranking.accuracy),
        "cross_entropy": asdict(ranking.cross_entropy),
        "seconds": sum(ranked.seconds for ranked in done),
        "networks": [ranked.to_dict() for ranked in done],
    }


def _training(context: WorkerContext) -> Loader:
    """Batches of the weight split, with the batch size and augmentation of retraining."""
    retrain = context.task.job.retrain
    assert retrain is not None, "checked when the job was read"
    _, weight = search_parts(context)
    return context.loader(weight, retrain.batch_size, "ranking weights", is_retraining=True)


def _ranked(
    context: WorkerContext, searched: Searched, training: Loader, done: list[RankedNetwork]
) -> Iterator[Ranked]:
    job = context.task.job
    assert job.retrain is not None, "checked when the job was read"
    supernet, recipe = searched.state.supernet, (job.search, job.retrain)
    began = time.perf_counter()
    for network in measure_ranking(
        supernet, searched.data, training, *recipe, job.seed, context.group, done
    ):
        yield Ranked(network, time.perf_counter() - began)
        began = time.perf_counter()


def _network_log(context: WorkerContext) -> NetworkLog:
    case = context.task.case
    return NetworkLog(context.storage, f"{case.folder}/{RANKING_FILE}", RANKING_FORMAT, case.key)


def _load(context: WorkerContext) -> list[Ranked]:
    stored = context.group.broadcast_from_first(_network_log(context).read)
    return [Ranked.from_dict(values) for values in stored]


def _store(context: WorkerContext, done: list[Ranked]) -> None:
    if context.group.rank == 0:
        _network_log(context).write([ranked.to_dict() for ranked in done])


def _report(context: WorkerContext, done: list[Ranked], steps: int) -> None:
    """Report the last network to the driver; `steps` is the number of steps per epoch."""
    job = context.task.job
    assert job.retrain is not None, "checked when the job was read"
    last = done[-1].network
    context.report(
        {
            "phase": "ranking",
            "epoch": len(done) - 1,
            "epochs": job.search.ranking_networks,
            "loss": last.alone_loss,
            "top1": last.alone_accuracy,
            "supernet_loss": last.supernet_loss,
            "supernet_top1": last.supernet_accuracy,
            "seconds": done[-1].seconds,
            "steps": job.retrain.epochs * steps,
            "time": time.time(),
        }
    )
