"""How many workers train a case, with what each, and how many cases run beside each other.

A trial of Ray Tune reserves next to nothing and its workers come in a placement group of their own,
so as many trials are let in at once as groups fit: none waits for another that waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestration.config.job import ClusterSettings

FEWEST_IMAGES = 16
"""Of a batch for each worker of a warm-up: BatchNorm over fewer is noise."""


@dataclass(frozen=True)
class NodeResources:
    """What a node offers to workers."""

    cpus: int
    gpus: float = 0.0

    def slots(self, cpus: int, gpus: float) -> int:
        """Workers that fit, with so much each. A part of a GPU is of one GPU."""
        by_cpu = self.cpus // cpus
        if gpus == 0:
            return by_cpu
        whole = int(self.gpus)
        by_gpu = whole * int(1 / gpus + 1e-9) if gpus < 1 else int(whole // gpus)
        return min(by_cpu, by_gpu)


@dataclass(frozen=True)
class WorkerLayout:
    """How the workers of one case are placed."""

    workers: int
    """The most, where their number may change."""
    cpus_per_worker: int
    gpus_per_worker: float
    at_once: int
    """Cases that run beside each other; 0 where not even one fits."""
    least: int | None = None
    """Workers with which a case begins where there is no room for more; None: always `workers`."""
    backend: str | None = None
    """Of torch.distributed; None: NCCL where workers have GPUs, else gloo."""

    def __str__(self) -> str:
        gpus = f", {self.gpus_per_worker:g} GPU" if self.gpus_per_worker else ""
        count = str(self.workers) if self.least is None else f"{self.least} to {self.workers}"
        cores = "1 core" if self.cpus_per_worker == 1 else f"{self.cpus_per_worker} cores"
        cases = "1 case" if self.at_once == 1 else f"{self.at_once} cases"
        return f"{count} per case with {cores}{gpus} each; {cases} at a time"


def worker_layout(settings: ClusterSettings, rooms: Sequence[NodeResources]) -> WorkerLayout:
    """Workers of a case on nodes like these: one per GPU, else one per two cores."""
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
    """The least and the most; one where it takes a part of a GPU, which several workers of a case
    cannot share."""
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
    """Cores of a worker: its GPU's part of those of a node; without GPUs as many as leave room for
    all workers of one case."""
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
    """Workers of a warm-up: all that the nodes hold, `most` of them where that is said, each with
    images enough and whole GPUs, since nothing else runs meanwhile."""
    share = max(1.0, layout.gpus_per_worker) if layout.gpus_per_worker else 0.0
    slots = _slots(rooms, layout.cpus_per_worker, share)
    wanted = min(slots, batch_size // FEWEST_IMAGES)
    workers = max(layout.workers, wanted if most is None else min(wanted, most))
    cores = layout.cpus_per_worker
    if share == 0:
        cores = max(cores, _fair_cores(rooms, workers, 0.0))
    return replace(layout, workers=workers, cpus_per_worker=cores, gpus_per_worker=share, at_once=1)


def check_placeable(layout: WorkerLayout, rooms: Sequence[NodeResources]) -> str | None:
    """What is wrong if these workers can never be placed; None if they can."""
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
