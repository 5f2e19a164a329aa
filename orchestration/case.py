"""The work of one case inside its worker group: search, derive, measure, retrain, write the result.

All workers run `case_worker`; the first one measures and writes, the others wait for it. A stage
whose result is in storage already is not repeated, one in progress goes on from its checkpoint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray.train
import torch

from cluster.hardware import TARGETS, Target
from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable
from nas_core.search import alphas_digest
from orchestration.checkpoint import Saved, load
from orchestration.data import Dataset, ImageSet, MemoryLoader, load_dataset
from orchestration.job import Job
from orchestration.plan import Case
from orchestration.spec import check_job
from orchestration.workers import RayTeam, worker_device


@dataclass(frozen=True)
class CaseWork:
    """What the workers of a case are given."""

    job: Job
    case: Case
    references: tuple[Case, ...]
    """Reference networks that this case trains beside its own, since nobody else does."""
    table: LatencyTable
    folder: str
    """The job's storage."""
    threads: int
    """Per worker."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, to send to workers."""
        return {
            "job": self.job.to_dict(),
            "case": asdict(self.case),
            "references": [asdict(case) for case in self.references],
            "table": self.table.to_dict(),
            "folder": self.folder,
            "threads": self.threads,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CaseWork:
        """The inverse of `to_dict`."""
        return cls(
            job=check_job(values["job"], "job"),
            case=Case(**values["case"]),
            references=tuple(Case(**case) for case in values["references"]),
            table=LatencyTable.from_dict(values["table"]),
            folder=values["folder"],
            threads=values["threads"],
        )


@dataclass(frozen=True)
class Crew:
    """A worker's surroundings while it works on a case."""

    work: CaseWork
    team: RayTeam
    device: torch.device
    dataset: Dataset
    storage: Storage
    """The job's."""
    saved: Saved | None
    """The last checkpoint."""

    @property
    def target(self) -> Target:
        """Hardware of the case."""
        return TARGETS[self.work.case.target]

    def loader(self, part: ImageSet, batch_size: int, purpose: str) -> MemoryLoader:
        """This worker's training batches of a part of the data."""
        return MemoryLoader(
            part,
            self.dataset.mean,
            self.dataset.std,
            batch_size=batch_size,
            seed=self.work.job.seed,
            purpose=purpose,
            rank=self.team.rank,
            size=self.team.size,
            max_shift=self.work.job.data.max_shift,
            flip=self.work.job.data.flip,
            device=self.device,
        )

    def saved_for(self, stage: str) -> Saved | None:
        """The last checkpoint, if it was made in this stage."""
        return self.saved if self.saved is not None and self.saved.stage == stage else None


@dataclass(frozen=True)
class Derived:
    """An architecture with its latency, by the table and measured."""

    architecture: Architecture
    table_ms: float
    measured_ms: float
    measured_spread: float
    tries: list[dict[str, float]]
    history: list[dict[str, Any]]
    """Of the search; empty for a reference network."""
    alphas: list[str]
    """Digest of the architecture parameters that each worker ended with; all equal."""


def case_worker(config: dict[str, Any]) -> None:
    """Body of one Ray Train worker."""
    from orchestration.derive import derive
    from orchestration.retrain import retrain
    from orchestration.search import search

    crew = _crew(CaseWork.from_dict(config))
    job, case = crew.work.job, crew.work.case
    derived = _stored(crew, case)
    if derived is None:
        state, history = search(crew)
        alphas = crew.team.gather(alphas_digest(state.supernet))
        if crew.team.rank == 0:
            _store(crew, case, derive(crew, state.supernet.log_probs(), history, alphas))
        crew.team.wait()
        derived = _stored(crew, case)
    assert derived is not None, "the first worker has just stored it"
    if job.retrain is None:
        _write_result(crew, case, derived, {})
        return
    for network in (case, *crew.work.references):
        found = derived if network == case else _reference(crew)
        outcome = retrain(crew, network, found.architecture)
        _write_result(crew, network, found, outcome)


def _crew(work: CaseWork) -> Crew:
    torch.set_num_threads(work.threads)
    device = worker_device()
    team = RayTeam(device)
    checkpoint = ray.train.get_checkpoint()
    saved = None
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            saved = load(Path(folder), team.rank, device)
    dataset = load_dataset(work.job.data, work.job.seed)
    return Crew(work, team, device, dataset, Storage(work.folder), saved)


def _store(crew: Crew, case: Case, derived: Derived) -> None:
    values = asdict(derived)
    values["architecture"] = derived.architecture.to_dict()
    crew.storage.write_text(
        f"{case.folder}/architecture.json", derived.architecture.to_json() + "\n"
    )
    crew.storage.write_json(f"{case.folder}/derived.json", {"key": case.key, **values})


def _stored(crew: Crew, case: Case) -> Derived | None:
    place = f"{case.folder}/derived.json"
    if not crew.storage.exists(place):
        return None
    values = crew.storage.read_json(place)
    if values.pop("key") != case.key:
        return None
    values["architecture"] = Architecture.from_dict(values["architecture"])
    return Derived(**values)


def _reference(crew: Crew) -> Derived:
    """The reference network; the measure stage has measured it."""
    table = crew.work.table
    assert table.reference_ms is not None, "the measure stage measures the reference network"
    architecture = Architecture.reference(table.space)
    table_ms, measured_ms = table.latency_ms(architecture), table.reference_ms
    tries = [{"table_ms": table_ms, "measured_ms": measured_ms, "drift": 1.0}]
    return Derived(architecture, table_ms, measured_ms, table.reference_spread, tries, [], [])


def _write_result(crew: Crew, case: Case, derived: Derived, outcome: dict[str, Any]) -> None:
    """Everything about a finished network, written once all of it is there."""
    if crew.team.rank == 0:
        text = derived.architecture.to_json() + "\n"
        crew.storage.write_text(f"{case.folder}/architecture.json", text)
        values = _result(crew, case, derived, outcome)
        crew.storage.write_json(f"{case.folder}/result.json", values)
    crew.team.wait()


def _result(crew: Crew, case: Case, derived: Derived, outcome: dict[str, Any]) -> dict[str, Any]:
    job, data, architecture = crew.work.job, crew.dataset, derived.architecture
    gpu_share = crew.team.size / 3600 if crew.device.type == "cuda" else 0.0
    search_s = sum(epoch["seconds"] for epoch in derived.history)
    retrain_s = sum(epoch["seconds"] for epoch in outcome.get("retrain_history", []))
    return {
        "format": "case-result/1",
        "key": case.key,
        "job": job.name,
        "case": case.name,
        "kind": case.kind,
        "target": case.target,
        "hardware": crew.target.hardware(),
        "stand_in": crew.target.stand_in,
        "budget": case.budget,
        "budget_ms": case.budget_ms,
        "strategy": job.search.strategy,
        "objective": job.search.objective,
        "space": architecture.space.name,
        "seed": job.seed,
        "architecture_hash": architecture.digest(),
        "architecture": architecture.to_dict(),
        "table_key": case.table_key,
        "table_ms": derived.table_ms,
        "measured_ms": derived.measured_ms,
        "measured_spread": derived.measured_spread,
        "tries": derived.tries,
        "params": architecture.num_params(),
        "macs": architecture.macs(),
        "workers": crew.team.size,
        "alphas": derived.alphas,
        "search_s": search_s,
        "search_gpu_hours": search_s * gpu_share,
        "search_history": derived.history,
        "retrain_s": retrain_s,
        "retrain_gpu_hours": retrain_s * gpu_share,
        "classes": list(data.classes),
        "input_shape": list(data.train.images.shape[1:]),
        "mean": list(data.mean),
        "std": list(data.std),
        "top1": None,
        "top5": None,
        "retrain_history": [],
        **outcome,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
