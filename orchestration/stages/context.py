"""Surroundings of a worker while it works on a case: settings, device, data, storage, team."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cluster.hardware import Target
from cluster.storage import Storage
from nas_core.batch import Batch, Loader
from nas_core.latency import LatencyTable
from nas_core.space import SearchSpace
from orchestration.config.job import Job
from orchestration.config.loading import check_job
from orchestration.data.dataset import Dataset, ImageSet, normalise
from orchestration.data.loader import MemoryLoader, evaluation_batches
from orchestration.data.streaming.bad_samples import Damage
from orchestration.data.streaming.dataset import StreamedDataset
from orchestration.data.streaming.loader import Reading, StreamLoader, streamed_batches
from orchestration.data.streaming.subset import StreamedSet
from orchestration.data.transforms import recipe_of
from orchestration.distributed.control_actor import Board, NoBoard
from orchestration.distributed.process_group import RayTeam
from orchestration.planning.cases import Case, checkpoints_place


@dataclass(frozen=True)
class CaseWork:
    """What the workers of a case are given."""

    job: Job
    case: Case
    behind: tuple[Case, ...]
    """Networks that its workers train after its own."""
    target: Target | None
    """None for a warm-up, which is the same for all hardware; so is the table."""
    table: LatencyTable | None
    folder: str
    """The job's storage."""
    threads: int
    """Per worker."""
    gpus: float = 0.0
    """Per worker: a part where cases share one."""
    elsewhere: Mapping[str, tuple[Target, LatencyTable]] = field(default_factory=dict)
    """By name, the other targets of the networks behind."""

    def of(self, case: Case) -> CaseWork:
        """What its workers are given for one of its cases, that of another target included."""
        target, table = self.elsewhere.get(case.target, (self.target, self.table))
        return replace(self, case=case, behind=(), target=target, table=table, elsewhere={})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, to send to workers."""
        return {
            "job": replace(self.job, record=replace(self.job.record, tracking_uri=None)).to_dict(),
            "case": asdict(self.case),
            "behind": [asdict(case) for case in self.behind],
            "target": None if self.target is None else asdict(self.target),
            "table": None if self.table is None else self.table.to_dict(),
            "folder": self.folder,
            "threads": self.threads,
            "gpus": self.gpus,
            "elsewhere": {
                name: [asdict(target), table.to_dict()]
                for name, (target, table) in self.elsewhere.items()
            },
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CaseWork:
        """The inverse of `to_dict`."""
        return cls(
            job=check_job(values["job"], "job"),
            case=Case(**values["case"]),
            behind=tuple(Case(**case) for case in values["behind"]),
            target=values["target"] and Target.from_dict(values["target"]),
            table=values["table"] and LatencyTable.from_dict(values["table"]),
            folder=values["folder"],
            threads=values["threads"],
            gpus=values["gpus"],
            elsewhere={
                name: (Target.from_dict(target), LatencyTable.from_dict(table))
                for name, (target, table) in values["elsewhere"].items()
            },
        )


@dataclass(frozen=True)
class Crew:
    """A worker's surroundings while it works on a case."""

    work: CaseWork
    team: RayTeam
    device: torch.device
    dataset: Dataset | StreamedDataset
    storage: Storage
    """The job's."""
    board: Board = field(default_factory=NoBoard)
    """Where the driver and the workers of the case write."""

    def of(self, case: Case) -> Crew:
        """The same workers, for one of their cases."""
        return replace(self, work=self.work.of(case))

    @property
    def target(self) -> Target:
        """Hardware of the case."""
        assert self.work.target is not None, "a case that is no warm-up has a target"
        return self.work.target

    @property
    def table(self) -> LatencyTable:
        """Latencies of the space on it."""
        assert self.work.table is not None, "a case that is no warm-up has a table"
        return self.work.table

    @cached_property
    def space(self) -> SearchSpace:
        """The space of the job."""
        channels, resolution, _ = self.dataset.shape
        return self.work.job.space.build(len(self.dataset.classes), channels, resolution)

    @property
    def root(self) -> Storage:
        """Storage of all jobs, where tables and warm-ups are."""
        return Storage(self.work.job.storage)

    def checkpoints(self, case: Case) -> Storage:
        """Where those of one of its cases lie, whichever workers have begun it."""
        return self.storage.sub(checkpoints_place(case))

    def loader(
        self,
        part: ImageSet | StreamedSet,
        batch_size: int,
        purpose: str,
        *,
        is_augmented: bool = True,
        is_retraining: bool = False,
    ) -> Loader:
        """This worker's training batches of a part of the data."""
        data, seed = self.work.job.data, self.work.job.seed
        recipe = recipe_of(data, is_retraining=is_retraining)
        if not is_augmented:
            recipe = recipe.for_test
        rank, size = self.team.rank, self.team.size
        if isinstance(part, StreamedSet):
            reading = self.reading
            if not is_augmented:  # the smaller part of a search, read beside the larger one
                reading = replace(reading, readers=max(1, reading.readers // 2))
            return StreamLoader(part, batch_size, seed, purpose, recipe, reading, rank, size)
        dataset = self.dataset
        assert isinstance(dataset, Dataset), "parts of a streamed set are streamed"
        return MemoryLoader.of(
            part, dataset, recipe, batch_size, seed, purpose, rank, size, self.device
        )

    @property
    def reading(self) -> Reading:
        """How this worker reads images that do not fit into memory."""
        dataset, stream = self.dataset, self.work.job.data.stream

        def normalised(images: Tensor) -> Tensor:
            return normalise(images.to(self.device, non_blocking=True), dataset.mean, dataset.std)

        return Reading(
            normalise=normalised,
            device=self.device,
            readers=self.work.threads if stream.readers == "auto" else stream.readers,
            ahead_bytes=stream.ahead_mib * 1024**2,
            on_problems=self.damage.note,
        )

    @property
    def damage(self) -> Damage:
        """Images of a streamed set that cannot be decoded."""
        assert isinstance(self.dataset, StreamedDataset), "others are decoded before"
        facts = self.dataset.facts
        return Damage(self.storage, facts.fingerprint, facts.count)

    def test_batches(self) -> Iterator[Batch]:
        """This worker's part of the test images."""
        dataset, team = self.dataset, self.team
        if isinstance(dataset, StreamedDataset):
            recipe = recipe_of(self.work.job.data, is_retraining=True)
            return streamed_batches(dataset.test, recipe, self.reading, team.rank, team.size)
        return evaluation_batches(
            dataset.test, dataset.mean, dataset.std, team.rank, team.size, self.device
        )
