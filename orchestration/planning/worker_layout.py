"""Worker layout: number and resources of the workers of a case, and how many cases run at once.

A Ray Tune trial reserves almost nothing, and its workers come in a placement group of their own.
The number of concurrent trials is therefore limited to the number of groups that fit. Otherwise
trials would start and wait for resources that others hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestration.config.job import ClusterSettings

FEWEST_IMAGES = 16
"""Fewest images of a batch per worker of a warm-up. BatchNorm is too noisy with fewer."""


@dataclass(frozen=True)
class NodeResources:
    """Resources of a node for workers."""

    cpus: int
    gpus: float = 0.0

    def slots(self, cpus: int, gpus: float) -> int:
        """Number of workers that fit. A fraction of a GPU must come from one GPU."""
        by_cpu = self.cpus // cpus
        if gpus == 0:
            return by_cpu
        whole = int(self.gpus)
        by_gpu = whole * int(1 / gpus + 1e-9) if gpus < 1 else int(whole // gpus)
        return min(by_cpu, by_gpu)


@dataclass(frozen=True)
class WorkerLayout:
    """Number and resources of the workers of one case."""

    workers: int
    """Number of workers; the largest one if it is elastic."""
    cpus_per_worker: int
    gpus_per_worker: float
    at_once: int
    """Number of cases that run at the same time; 0 if not even one fits."""
    least: int | None = None
    """Fewest workers that a case runs with, if the number is elastic; None: always `workers`."""
    backend: str | None = None
    """Backend of torch.distributed. None: NCCL if workers have GPUs, else gloo."""

    def __str__(self) -> str:
        gpus = f", {self.gpus_per_worker:g} GPU" if self.gpus_per_worker else ""
        count = str(self.workers) if self.least is None else f"{self.least} to {self.workers}"
        cores = "1 core" if self.cpus_per_worker == 1 else f"{self.cpus_per_worker} cores"
        cases = "1 case" if self.at_once == 1 else f"{self.at_once} cases"
        return f"{count} per case with {cores}{gpus} each; {cases} at a time"


def worker_layout(settings: ClusterSettings, rooms: Sequence[NodeResources]) -> WorkerLayout:
    """Layout of a case on these nodes. `auto` workers: one per GPU, else one per two cores."""
    gpus, per_worker = sum(int(room.gpus) for room in rooms), settings.gpus_per_worker
    share = float(min(1, gpus)) if per_worker == "auto" else float(per_worker)
    least, workers = _asked_workers(settings, rooms, share)
    named = settings.cpus_per_worker
    cores = _fair_cores(rooms, workers, share) if named == "auto" else named
    slots = _slots(rooms, cores, share)
    at_once = slots // workers or int(slots >= (least or workers))
    return WorkerLayout(workers, cores, share, at_once, least)


def _asked_workers(
    settings: ClusterSettings, rooms: Sequence[NodeResources], share: float
) -> tuple[int | None, int]:
    """(fewest, most) workers. With a fraction of a GPU there is one, since workers of a case cannot
    share a GPU."""
    asked, cores = settings.workers, settings.cpus_per_worker
    if isinstance(asked, tuple):
        return asked
    if asked != "auto":
        return None, asked
    if 0 < share < 1:
        return None, 1
    usual = sum(room.cpus for room in rooms) // 2
    if share > 0:
        usual = int(sum(int(room.gpus) for room in rooms) // share)
    return None, max(1, usual if cores == "auto" else min(usual, _slots(rooms, cores, share)))


def _slots(rooms: Sequence[NodeResources], cpus: int, gpus: float) -> int:
    return sum(room.slots(cpus, gpus) for room in rooms)


def _fair_cores(rooms: Sequence[NodeResources], workers: int, share: float) -> int:
    """Cores per worker: each GPU's share of its node's cores. Without GPUs: the largest number with
    which all workers of a case fit."""
    if share > 0:
        parts = [room.cpus // slots for room in rooms if (slots := room.slots(1, share)) > 0]
        return max(1, min(parts, default=1))
    cores = max(1, max((room.cpus for room in rooms), default=1))
    while cores > 1 and _slots(rooms, cores, 0.0) < workers:
        cores -= 1
    return cores


def warmup_layout(
    layout: WorkerLayout, rooms: Sequence[NodeResources], batch_size: int, most: int | None = None
) -> WorkerLayout:
    """Layout of a warm-up. It runs alone, so it gets as many workers as fit, up to `most`.

    Each worker has whole GPUs and at least FEWEST_IMAGES images of a batch.
    """
    share = max(1.0, layout.gpus_per_worker) if layout.gpus_per_worker else 0.0
    slots = _slots(rooms, layout.cpus_per_worker, share)
    wanted = min(slots, batch_size // FEWEST_IMAGES)
    workers = max(layout.workers, wanted if most is None else min(wanted, most))
    cores = layout.cpus_per_worker
    if share == 0:
        cores = max(cores, _fair_cores(rooms, workers, 0.0))
    return replace(layout, workers=workers, cpus_per_worker=cores, gpus_per_worker=share, at_once=1)


def check_placeable(layout: WorkerLayout, rooms: Sequence[NodeResources]) -> str | None:
    """Error message if these workers can never be placed; None if they can."""
    if layout.at_once > 0:
        return None
    needed = layout.least or layout.workers
    each = f"{layout.cpus_per_worker} cores"
    each += f" and {layout.gpus_per_worker:g} GPUs" if layout.gpus_per_worker else ""
    there = ", ".join(f"{room.cpus} cores and {room.gpus:g} GPUs" for room in rooms) or "no node"
    nodes = "1 node" if len(rooms) == 1 else f"{len(rooms)} nodes"
    return (
        f"cluster.workers is {needed}, with {each} for each; the cluster has {nodes}: {there}: "
        "ask for fewer workers or less for each"
    )
