"""Soak test: a sweep of many cases whose training takes milliseconds.

Run `python tests/benchmarks/soak.py` (200 cases; `--cases 6` to try it). A separate Ray instance
claims to have GPUs; every worker takes half of one. Trials, controllers, workers and the control
actor are the real ones; only the worker function is replaced by a loop that sleeps and reports. The
resident memory of the driver is read whenever a case ends. Its growth is the slope of a line
through these readings, without the first cases, during which libraries are still loaded.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from cluster.runtimes import present
from cluster.storage import Storage
from orchestration.config.job import ClusterSettings
from orchestration.distributed.control_actor import RayControlClient
from orchestration.driver.stopping import StopSignal
from orchestration.driver.trials import run_cases
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import make_plan
from orchestration.planning.worker_layout import NodeResources, WorkerLayout, worker_layout
from orchestration.stages.context import CaseTask
from tests.benchmarks.lines import keep, line
from tests.support.latency_tables import by_kernel, table_of
from tests.support.worker_context import tiny_job

EPOCHS, STEPS, STEP_S = 3, 5, 0.001
GPU_SHARE = 0.5
CORES = 2
"""Cores that Ray is told to have, whatever the machine has."""
LOADING = 10
"""Number of first cases that are left out of the memory growth."""


@dataclass(frozen=True)
class Span:
    """Time span in which the worker of a case trained, and its GPUs."""

    case: str
    began: float
    ended: float
    gpus: tuple[str, ...]


def loop(config: dict[str, Any]) -> None:
    """Worker function: run a few epochs of a few milliseconds, then write the span."""
    import ray

    task, began = config["task"], time.time()
    case = task["case"]["name"]
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            time.sleep(STEP_S)
        record = {"phase": "search", "epoch": epoch, "epochs": EPOCHS, "loss": 1.0 / (1 + epoch)}
        RayControlClient(config["control"], case).record(record)
    gpus = tuple(map(str, ray.get_gpu_ids()))
    span = Span(case, began, time.time(), gpus)
    Storage(task["folder"]).write_json(f"spans/{case}.json", asdict(span))


def tasks(count: int, folder: Path) -> list[CaseTask]:
    """Cases that differ only in their name."""
    job = tiny_job(folder)
    plan = make_plan(job)
    table = table_of(plan.space, by_kernel)
    case = next(c for c in cases_of(plan, {"mobile": table}) if c.kind == "search")
    uri, target = Storage(job.storage).sub(job.name).uri, present(job.target("mobile"))
    named = [replace(case, name=f"mobile-{i:03d}", key=f"{i:016x}") for i in range(count)]
    return [CaseTask(job, plan.data, item, (), target, table, uri, threads=1) for item in named]


@dataclass
class Driver:
    """Callback for the reports of cases; notes when cases end and the memory of the driver."""

    process: psutil.Process = field(default_factory=psutil.Process)
    ended: list[float] = field(default_factory=list)
    """Times at which cases reported their last epoch."""
    memory_mb: list[float] = field(default_factory=list)
    """Resident memory of the driver at these times."""

    def __call__(self, _case: str, record: dict[str, Any]) -> None:
        if record.get("epoch") == EPOCHS - 1:
            self.ended.append(time.time())
            self.memory_mb.append(self.process.memory_info().rss / 1e6)

    def growth_mb(self) -> float:
        """Growth of memory in megabytes per case, by least squares."""
        seen = self.memory_mb[LOADING:] if len(self.memory_mb) > 2 * LOADING else self.memory_mb
        return statistics.linear_regression(range(len(seen)), seen).slope


def most_at_once(spans: Sequence[Span]) -> int:
    """Largest number of spans that overlap."""
    events = sorted([(s.began, 1) for s in spans] + [(s.ended, -1) for s in spans])
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    return most


def soak(count: int, layout: WorkerLayout, gpus: int, folder: Path) -> tuple[Driver, float]:
    """Run so many cases on Ray with so many GPUs; return the callback and the seconds taken."""
    import ray

    driver, stored = Driver(), Storage(str(folder)).sub("tiny")
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temporary:
        ray.init(
            address="local",
            num_cpus=CORES,
            num_gpus=gpus,
            dashboard_host="127.0.0.1",
            include_dashboard=True,  # as in a job, see cluster/connect.py
            log_to_driver=False,
            logging_level=logging.WARNING,
            _temp_dir=temporary,
        )
        began = time.time()
        try:
            failed = run_cases(
                tasks(count, folder), layout, stored, driver, StopSignal(), body=loop
            )
        finally:
            ray.shutdown()
    assert not failed, failed
    return driver, time.time() - began


def spans_in(folder: Path) -> list[Span]:
    """Spans of all cases that were run."""
    result = [json.loads(path.read_text()) for path in sorted(folder.glob("tiny/spans/*.json"))]
    return [Span(**{**item, "gpus": tuple(item["gpus"])}) for item in result]


def main() -> None:
    """Measure, write the results and check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument(
        "--gpus", type=int, default=1, help="number of GPUs that Ray is told to have"
    )
    parser.add_argument("--file", type=Path, help="result file, by default one in results/")
    given = parser.parse_args()
    settings = ClusterSettings(workers=1, cpus_per_worker=1, gpus_per_worker=GPU_SHARE)
    computed = worker_layout(settings, [NodeResources(CORES, given.gpus)])
    layout, at_once = replace(computed, backend="gloo"), computed.at_once
    with tempfile.TemporaryDirectory() as folder:
        driver, seconds = soak(given.cases, layout, given.gpus, Path(folder))
        spans = spans_in(Path(folder))
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()) / 1e6
    assert len(spans) == given.cases
    assert most_at_once(spans) <= at_once
    what = f"of {given.cases} cases, {at_once} at once"
    result = [
        line(f"seconds {what}", [seconds]),
        line(
            f"seconds from one case's end to the next {what}",
            [b - a for a, b in pairwise(driver.ended)],
        ),
        line(f"cases that trained at once, the most {what}", [float(most_at_once(spans))]),
        line(f"MB that the driver holds when a case ends {what}", driver.memory_mb),
        line(f"MB by which the driver grows a case {what}", [driver.growth_mb()]),
        line(f"MB of files in the storage {what}", [size]),
    ]
    keep("soak", result, given.file)
    assert driver.growth_mb() < 1.0 or given.cases <= 2 * LOADING


if __name__ == "__main__":
    main()
