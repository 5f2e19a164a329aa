"""Context of a worker that runs a case: settings, device, data, storage, process group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from orchestration.data.info import DataFacts, is_streamed
from orchestration.data.loader import MemoryLoader, evaluation_batches
from orchestration.data.loading import keep_images, load_dataset
from orchestration.data.streaming.bad_samples import BadSamples
from orchestration.data.streaming.dataset import StreamedDataset, load_streamed
from orchestration.data.streaming.loader import Reading, StreamLoader, streamed_batches
from orchestration.data.streaming.subset import StreamedSet
from orchestration.data.transforms import recipe_of
from orchestration.distributed.control_actor import ControlClient, NoControlClient, RayControlClient
from orchestration.distributed.process_group import RayProcessGroup, worker_device
from orchestration.planning.case import Case, SearchCase, checkpoints_place

Part = Job | DataFacts | Target | LatencyTable
"""Part of the input of a case that many cases of a job have in common."""


def values_of(part: Part) -> dict[str, Any]:
    """Plain values of a part. Of a job's cases one is kept: workers do not read them."""
    if isinstance(part, Job):
        record = replace(part.record, tracking_uri=None)  # it may hold a password
        return replace(part, record=record, cases=part.cases[:1]).to_dict()
    return part.to_dict() if isinstance(part, LatencyTable) else asdict(part)


@dataclass(frozen=True)
class CaseTask:
    """Input of the workers of a case."""

    job: Job
    data: DataFacts
    """Facts about the images of the job, determined by the driver."""
    case: Case
    co_scheduled: tuple[Case, ...]
    """Cases that its workers run after it."""
    target: Target | None
    """Target of the case; None, like the table, for a warm-up, which is hardware-independent."""
    table: LatencyTable | None
    folder: str
    """Path or URI of the job's folder."""
    threads: int
    """CPU threads per worker."""
    gpus: float = 0.0
    """GPUs per worker; a fraction if cases share one."""
    elsewhere: Mapping[str, tuple[Target, LatencyTable]] = field(default_factory=dict)
    """Other targets of the co-scheduled cases, by name."""

    def of(self, case: Case) -> CaseTask:
        """The input for one of its cases, with the target of that case."""
        target, table = self.elsewhere.get(case.target, (self.target, self.table))
        return replace(self, case=case, co_scheduled=(), target=target, table=table, elsewhere={})

    def to_dict(self, share: Callable[[Part], Any] | None = None) -> dict[str, Any]:
        """Plain values that are sent to workers.

        Args:
            share: returns a reference to `values_of(part)` for each part that other cases may have
                too. None: the values themselves.
        """
        share = share or values_of
        return {
            "job": share(self.job),
            "data": share(self.data),
            "case": self.case.to_dict(),
            "co_scheduled": [case.to_dict() for case in self.co_scheduled],
            "target": None if self.target is None else share(self.target),
            "table": None if self.table is None else share(self.table),
            "folder": self.folder,
            "threads": self.threads,
            "gpus": self.gpus,
            "elsewhere": {
                name: [share(target), share(table)]
                for name, (target, table) in self.elsewhere.items()
            },
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CaseTask:
        """The inverse of `to_dict`."""
        return cls(
            job=check_job(values["job"], "job"),
            data=DataFacts.from_dict(values["data"]),
            case=Case.from_dict(values["case"]),
            co_scheduled=tuple(Case.from_dict(case) for case in values["co_scheduled"]),
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
class WorkerContext:
    """Context of a worker that runs a case."""

    task: CaseTask
    group: RayProcessGroup
    device: torch.device
    dataset: Dataset | StreamedDataset
    storage: Storage
    """Storage of the job."""
    control: ControlClient = field(default_factory=NoControlClient)
    """Client of the control actor, which connects the driver and the workers."""

    def of(self, case: Case) -> WorkerContext:
        """The context for one of the co-scheduled cases."""
        return replace(self, task=self.task.of(case))

    def report(self, record: dict[str, Any]) -> None:
        """Report an epoch, a network or a note to the driver. The first worker sends it."""
        if self.group.rank == 0:
            self.control.record(record)

    @property
    def search_case(self) -> SearchCase:
        """The case of workers that search."""
        assert isinstance(self.task.case, SearchCase), "only a case of this kind is searched"
        return self.task.case

    @property
    def target(self) -> Target:
        """Hardware of the case."""
        assert self.task.target is not None, "a case that is no warm-up has a target"
        return self.task.target

    @property
    def table(self) -> LatencyTable:
        """Latency table of the space on the target."""
        assert self.task.table is not None, "a case that is no warm-up has a table"
        return self.task.table

    @cached_property
    def space(self) -> SearchSpace:
        """Search space of the job."""
        channels, resolution, _ = self.dataset.shape
        return self.task.job.space.build(len(self.dataset.classes), channels, resolution)

    @property
    def root(self) -> Storage:
        """Storage of all jobs, with latency tables and warm-ups."""
        return Storage(self.task.job.storage)

    def checkpoints(self, case: Case) -> Storage:
        """Folder of the checkpoints of one of the cases."""
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
        """Training batches of this worker from a part of the data."""
        data, seed = self.task.job.data, self.task.job.seed
        recipe = recipe_of(data, is_retraining=is_retraining)
        if not is_augmented:
            recipe = recipe.for_test
        rank, size = self.group.rank, self.group.size
        if isinstance(part, StreamedSet):
            reading = self.reading
            if (
                not is_augmented
            ):  # the smaller part of a search, read concurrently with the larger one
                reading = replace(reading, readers=max(1, reading.readers // 2))
            return StreamLoader(part, batch_size, seed, purpose, recipe, reading, rank, size)
        dataset = self.dataset
        assert isinstance(dataset, Dataset), "parts of a streamed set are streamed"
        return MemoryLoader.of(
            part, dataset, recipe, batch_size, seed, purpose, rank, size, self.device
        )

    @property
    def reading(self) -> Reading:
        """Settings of this worker for reading images that do not fit into memory."""
        dataset, stream = self.dataset, self.task.job.data.stream

        def normalised(images: Tensor) -> Tensor:
            return normalise(images.to(self.device, non_blocking=True), dataset.mean, dataset.std)

        return Reading(
            normalise=normalised,
            device=self.device,
            readers=self.task.threads if stream.readers == "auto" else stream.readers,
            ahead_bytes=stream.ahead_mib * 1024**2,
            on_problems=self.damage.note,
        )

    @property
    def damage(self) -> BadSamples:
        """Record of images of a streamed dataset that cannot be decoded."""
        assert isinstance(self.dataset, StreamedDataset), "others are decoded before"
        facts = self.dataset.facts
        return BadSamples(self.storage, facts.fingerprint, facts.count)

    def check_bad_samples(self) -> None:
        """Raise BadSamplesError if too many images of a streamed set could not be decoded."""
        if isinstance(self.dataset, StreamedDataset):
            self.damage.check()

    def test_batches(self) -> Iterator[Batch]:
        """Batches of this worker's share of the test images."""
        dataset, group = self.dataset, self.group
        if isinstance(dataset, StreamedDataset):
            recipe = recipe_of(self.task.job.data, is_retraining=True)
            return streamed_batches(dataset.test, recipe, self.reading, group.rank, group.size)
        return evaluation_batches(
            dataset.test, dataset.mean, dataset.std, group.rank, group.size, self.device
        )


def worker_context(task: CaseTask, control: RayControlClient) -> WorkerContext:
    """The surroundings of this Ray Train worker."""
    torch.set_num_threads(task.threads)
    cluster = task.job.cluster
    if cluster.deterministic:
        torch.use_deterministic_algorithms(True)
    device = worker_device()
    group = RayProcessGroup(device, control, cluster.hang_timeout_s)
    if group.rank == 0:
        control.begin()
    dataset = load_images(task, group)
    return WorkerContext(task, group, device, dataset, Storage(task.folder), control)


def load_images(task: CaseTask, group: RayProcessGroup) -> Dataset | StreamedDataset:
    """Load the images of a job, with the facts that the driver has found out about them.

    What takes long is done by the first worker, and the others find it in storage.

    Raises:
        SpecError: an image cannot be decoded, or the images have changed since.
    """
    job, facts = task.job, task.data
    storage = Storage(job.storage)
    streams = is_streamed(job.data, facts)
    if group.rank == 0 and streams:
        load_streamed(job.data, storage, facts)
    elif group.rank == 0:
        keep_images(job.data, storage, facts)
    group.barrier()
    if streams:
        return load_streamed(job.data, storage, facts)
    return load_dataset(job.data, job.seed, storage, facts)
