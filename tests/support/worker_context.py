"""Stages of a case without Ray: one worker, on digits of 16 pixels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.runtimes import present
from cluster.storage import Storage
from nas_core.latency import LatencyTable
from nas_core.workers import SingleProcess
from orchestration.config.job import Job
from orchestration.config.loading import check_job
from orchestration.data.dataset import Dataset
from orchestration.data.loading import load_dataset
from orchestration.data.sources import describe
from orchestration.distributed.control_actor import NoControlClient
from orchestration.distributed.process_group import StepSignals
from orchestration.distributed.watchdog import Watchdog
from orchestration.planning.case import Case
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import make_plan
from orchestration.stages.context import CaseTask, WorkerContext
from tests.support.latency_tables import by_kernel, table_of

SEARCH = {
    "warmup_epochs": 1,
    "epochs": 2,
    "hold_epochs": 0,
    "batch_size": 128,
    "alpha_every": 2,
    "architecture_share": 0.2,
    "samples": 2,
    "population": 4,
    "tournament": 2,
    "trial_epochs": 1,
    "bn_images": 128,
    "alpha_lr": 0.05,
}
CHAIN = {
    "stem": {"channels": 8, "stride": 2},
    "stages": [{"width": 8, "blocks": 2, "stride": 1}],
    "kernels": [3, 5],
    "expansions": [3, 6],
    "head": 16,
}
"""Space with two sites of five ops."""


class OneWorker(SingleProcess):
    """A single worker, with the additional methods of Ray Train's process group."""

    def __init__(self, stop_after: int | None = None) -> None:
        """The driver requests a stop after `stop_after` steps."""
        self.watchdog = Watchdog(NoControlClient(), 0, 600.0)
        self.local_signals: Callable[[], StepSignals] = StepSignals
        self.signals = StepSignals()
        self.waited_s = 100.0  # in earlier stages
        self._left = stop_after

    def signal_values(self) -> list[float]:
        return self.local_signals().to_list()

    def apply_signals(self, signals: list[float]) -> None:
        self.signals = StepSignals.of(signals)
        if self._left is not None:
            self._left -= 1
            self.watchdog.is_stopping = self._left <= 1  # takes effect in the next step

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        yield

    def gather(self, value: str) -> list[str]:
        return [value]

    def broadcast_from_first(self, look: Callable[[], Any]) -> Any:
        return json.loads(json.dumps(look()))

    def barrier(self) -> None:
        """Do nothing."""


def tiny_job(storage: Path, cases: list[dict[str, Any]] | None = None, **sections: Any) -> Job:
    """A job that takes seconds; `search` changes single settings, other sections are replaced."""
    values = {
        "name": "tiny",
        "data": {"source": "digits", "resolution": 16},
        "space": CHAIN,
        "targets": {"mobile": {"stand_in": True}},
        "cases": cases or [{"target": "mobile", "budgets_ms": ["110%"]}],
        "search": SEARCH | sections.pop("search", {}),
        "measure": {"calibrate_s": 0.0, "accept_noisy": True},
        "retrain": {"epochs": 1, "batch_size": 128},
        "storage": str(storage),
        **sections,
    }
    return check_job(values, "tiny")


def context_of(
    job: Job, dataset: Dataset, *, case: str | None = None, stop_after: int | None = None
) -> WorkerContext:
    """Context of one worker with a case of the job: `case`, or the first one that searches."""
    torch.set_num_threads(1)
    plan = make_plan(job)
    tables = {target.name: table_of(plan.space, by_kernel) for target in plan.targets}
    cases = {item.name: item for item in cases_of(plan, tables | plan.shipped)}
    chosen = cases[case] if case else next(c for c in cases.values() if c.kind == "search")
    table = (tables | plan.shipped)[chosen.target]
    return context_with(job.with_seed(chosen.seed), dataset, chosen, table, stop_after)


def context_with(
    job: Job, dataset: Dataset, case: Case, table: LatencyTable, stop_after: int | None = None
) -> WorkerContext:
    """Context of one worker with this case."""
    folder = Storage(job.storage).sub(job.name)
    target = present(job.target(case.target)) if case.target else None
    task = CaseTask(job, describe(job.data), case, (), target, table, folder.uri, threads=1)
    group: Any = OneWorker(stop_after)
    return WorkerContext(task, group, torch.device("cpu"), dataset, folder)


class Reports:
    """Records what the workers of a case would report to the driver."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.epochs: list[dict[str, Any]] = []
        self.networks: list[dict[str, Any]] = []
        self.notes: list[str] = []
        patch.setattr(WorkerContext, "report", lambda _, record: self._add(record))

    def _add(self, record: dict[str, Any]) -> None:
        if "note" in record:
            self.notes.append(record["note"])
        else:
            is_network = record["phase"] in ("ranking", "random")
            (self.networks if is_network else self.epochs).append(record)


def digits(count: int = 640) -> Dataset:
    """Digits of 16 pixels, with their splits: the first `count` of those to train on.

    640 are 4 batches for the weights and 1 for the architecture; there are 1348 in all.
    """
    whole = load_dataset(tiny_job(Path("unused")).data, seed=0)
    train = whole.train.subset(torch.arange(min(count, len(whole.train))))
    return replace(whole, train=train, test=whole.test.subset(torch.arange(128)))
