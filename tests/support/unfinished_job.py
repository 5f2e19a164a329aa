"""A synthetic unfinished job: its cases, and the files that drivers and workers leave."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cluster.storage import Storage
from nas_core.architecture import Architecture
from orchestration.config.job import Job
from orchestration.planning.case import Case, checkpoints_place
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import Plan, make_plan
from orchestration.state.run_file import begun
from tests.support.job_folder import result
from tests.support.latency_tables import by_kernel, table_of
from tests.support.worker_context import tiny_job

WARMUP, SEARCH, RETRAIN = 2, 3, 4
"""Epochs of the stages; the search state counts 2 of warm-up and 3 of search as 5."""


class BegunJob:
    """A job with two budgets on `mobile`, in its own storage."""

    def __init__(self, root: Path, budgets: tuple[Any, ...] = ("90%", "110%"), **more: Any) -> None:
        """Plan the job; nothing is written yet."""
        entry = {"target": "mobile", "budgets_ms": list(budgets)}
        search = {"warmup_epochs": WARMUP, "epochs": SEARCH, **more.pop("search", {})}
        retrain = {"epochs": RETRAIN, "batch_size": 128}
        self.job: Job = tiny_job(root, [entry], search=search, retrain=retrain, **more)
        self.plan: Plan = make_plan(self.job)
        self.tables = {"mobile": table_of(self.plan.space, by_kernel)}
        self.cases = {case.name: case for case in cases_of(self.plan, self.tables)}
        self.reference, self.first, self.second = list(self.cases.values())[:3]
        self.root = Storage(str(root))
        self.folder = self.root.sub(self.job.name)

    def begin(self, *, knows_tables: bool = True) -> None:
        """Write what a driver writes before it is killed."""
        tables = self.tables if knows_tables else {}
        cases = list(self.cases.values()) if knows_tables else [self.reference]
        args = (self.plan, cases, self.folder, tables)
        begun(*args, is_complete=knows_tables).__enter__()

    def end(self, failed: dict[str, str] | None = None) -> None:
        """Write what a driver writes at its end."""
        self.folder.delete("plan.json")
        run = {"started": "2026-11-22T21:13:00+00:00", "wall_s": 300.0}
        values = {
            "format": "job/1",
            "name": self.job.name,
            "settings": self.job.to_dict(),
            "plan": {"cases": [case.to_dict() for case in self.cases.values()]},
            "runs": [run],
            "failed": failed or {},
        }
        self.folder.write_json("job.json", values)

    def finish(self, case: Case, **changes: Any) -> None:
        """Write the result of a case; an epoch took 2 s in the search, 1 s in the retraining."""
        same = ("kind", "target", "budget", "budget_ms", "key", "seed", "warmup_key", "search_key")
        facts = {name: case.to_dict()[name] for name in same} | {"job": self.job.name}
        network = Architecture.reference(self.plan.space).to_dict()
        more = {"table_key": case.table_key, "architecture": network}
        values = result(case.name, **{**facts, **more, **changes})
        self.folder.write_json(f"{case.folder}/architecture.json", values["architecture"])
        self.folder.write_bytes(f"{case.folder}/model/model.pt2", b"weights")
        self.folder.write_json(f"{case.folder}/result.json", values)

    def derive(self, case: Case) -> None:
        """Write the derived and measured network of a case."""
        values = {"key": case.key, "table_ms": 0.07, "measured_ms": 0.075}
        self.folder.write_json(f"{case.folder}/derived.json", values)

    def searching(self, case: Case, epoch: int, **options: Any) -> None:
        """Write a checkpoint of its search."""
        key = f"{checkpoints_place(case)}/search"
        checkpoint(self.folder.sub(key), epoch, **options)

    def retraining(self, case: Case, epoch: int, **options: Any) -> None:
        """Write a checkpoint of its retraining."""
        key = f"{checkpoints_place(case)}/retrain"
        checkpoint(self.folder.sub(key), epoch, phase="retrain", **options)


def checkpoint(
    folder: Storage,
    epoch: int,
    *,
    phase: str = "search",
    seconds: float = 2.0,
    size: int = 1,
    written: float | None = None,
) -> None:
    """Write the files that the first worker contributes to a checkpoint."""
    name = f"{epoch:05d}-00000000"
    history = [{"phase": phase, "epoch": n, "seconds": seconds} for n in range(epoch)]
    folder.write_bytes(f"{name}/shared.pt", b"tensors")
    folder.write_json(f"{name}/state.json", {"format": "checkpoint/2", "history": history})
    folder.write_json(f"{name}/rank-0.json", {"size": size, "files": {}})
    if written is not None:
        os.utime(folder.path(f"{name}/rank-0.json"), (written, written))
