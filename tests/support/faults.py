"""Fault injection on a real Ray cluster of several nodes.

The environment variable `FAULTS` names a folder. `faults.json` in it lists faults in order; each
happens once, in the given worker at the given step, after all earlier ones. Every fault that has
happened leaves a file in the folder, as does every start of a worker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from cluster.head import free_port
from tests.support.repository import REPOSITORY

INJECTED = Path(__file__).parent / "injected"

JOB_TIMEOUT_S = 600
"""Time limit for a worker to reach a step; a start took 10 s alone, 60 s beside other tests."""


@dataclass(frozen=True)
class Fault:
    """A fault in a worker."""

    what: str
    """"kill", "error", "hang" or "sleep" (a pause, which is not a fault)."""
    rank: int
    step: int
    """Number of steps that the worker has done since its start."""


def put(path: Path, text: str) -> None:
    """Write a file atomically, since other processes may be reading it."""
    new = path.with_name(f"{path.name}.{os.getpid()}")  # workers of two cases may write one file
    new.write_text(text)
    new.replace(path)


def install(module: Any) -> None:
    """Make the process group of a worker fail as `faults.json` says; called in Ray's processes."""
    folder, steps = Path(os.environ["FAULTS"]), [0]
    begin, apply = module.RayProcessGroup.__init__, module.RayProcessGroup.apply_signals

    def counted_begin(group: Any, *args: Any, **kwargs: Any) -> None:
        begin(group, *args, **kwargs)
        steps[0] = 0  # workers run cases one after the other
        with (folder / "starts").open("a") as file:
            file.write(f"{group.rank} {group.size} {os.getpid()} {time.time()}\n")

    def breaking_apply(group: Any, signals: list[float]) -> None:
        apply(group, signals)
        steps[0] += 1
        put(folder / f"step-{group.rank}", f"{steps[0]} {os.getpid()}")
        _break(folder, group.rank, steps[0])
        pace = folder / "pace"
        time.sleep(float(pace.read_text()) if pace.exists() else 0.0)

    average = module.RayProcessGroup.averaging

    @contextmanager
    def poisoned_averaging(group: Any, parameters: Any, facts: Any) -> Iterator[None]:
        with average(group, parameters, facts):
            yield
        if (folder / "poison").exists() and steps[0] >= int((folder / "poison").read_text()):
            facts[0] = float("nan")  # the mean loss

    module.RayProcessGroup.__init__, module.RayProcessGroup.apply_signals = (
        counted_begin,
        breaking_apply,
    )
    module.RayProcessGroup.averaging = poisoned_averaging


def _break(folder: Path, rank: int, step: int) -> None:
    for number, values in enumerate(json.loads((folder / "faults.json").read_text())):
        fault, happened = Fault(**values), folder / f"happened-{number}"
        if happened.exists():
            continue
        if (fault.rank, fault.step) == (rank, step):
            happened.write_text(str(os.getpid()))
            _do(fault.what)
        return


def _do(what: str) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "error":
        raise RuntimeError("injected: this worker breaks")
    elif what == "hang":
        time.sleep(3600)


@dataclass
class Rig:
    """A Ray cluster of several nodes on this machine, and drivers that use it."""

    folder: Path
    cluster: Any = None
    nodes: list[Any] = field(default_factory=list)
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    def plan(self, *faults: Fault) -> None:
        """Set the faults that happen from now on; records of earlier faults are removed."""
        for path in self.folder.glob("*"):
            if path.is_file():
                path.unlink()
        text = json.dumps([vars(fault) for fault in faults])
        put(self.folder / "faults.json", text)

    def pace(self, step_s: float) -> None:
        """Slow down every step by `step_s` from now on."""
        put(self.folder / "pace", str(step_s))

    def victim(self, number: int) -> int:
        """Process in which a fault happened; raises if it did not."""
        return int((self.folder / f"happened-{number}").read_text())

    def starts(self) -> list[tuple[int, int, int, float]]:
        """(rank, size, process, time) of every worker that was started."""
        path = self.folder / "starts"
        lines = path.read_text().splitlines() if path.exists() else []
        fields = [line.split() for line in lines]
        return [(int(a), int(b), int(c), float(d)) for a, b, c, d in fields]

    def attempts(self) -> int:
        """Number of times a group of workers was started."""
        return sum(rank == 0 for rank, *_ in self.starts())

    def wait_for_step(self, step: int, rank: int = 0, attempt: int = 1) -> int:
        """Wait until a worker has done `step` steps; return its process ID.

        Fails if the driver ends before.
        """
        path, driver = self.folder / f"step-{rank}", self.drivers[-1]
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while time.monotonic() < deadline and driver.poll() is None:
            fields = path.read_text().split() if path.exists() else []
            if self.attempts() >= attempt and len(fields) == 2 and int(fields[0]) >= step:
                process = int(fields[1])
                if psutil.pid_exists(process):
                    return process
            time.sleep(0.05)
        driver.kill()
        output, _ = driver.communicate()
        raise AssertionError(
            f"worker {rank} did not come to step {step} of start {attempt}; {output}"
        )

    def drive(
        self, job: Path, program: Sequence[str] = ("-m", "orchestration")
    ) -> subprocess.Popen[str]:
        """Start a driver on this cluster."""
        driver = subprocess.Popen(
            [sys.executable, "-W", "ignore", *program, str(job)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "RAY_ADDRESS": self.cluster.address},
            # A shell that runs the tests in the background has Ctrl-C ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.drivers.append(driver)
        return driver

    def announce(self, node: Any, left_s: int) -> None:
        """Announce to Ray that a node will be removed, as clouds do for spot machines."""
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
        arguments = ["--address", self.cluster.address, "--node-id", node.node_id, *reason]
        ray = Path(sys.executable).with_name("ray")
        subprocess.run(
            [str(ray), "drain-node", *arguments, "--deadline-remaining-seconds", str(left_s)],
            check=True,
            capture_output=True,
        )

    def end(self) -> None:
        """Stop everything that was started here."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
                driver.communicate()
        if self.cluster is not None:
            self.cluster.shutdown()


@contextmanager
def rig(folder: Path, *cpus: int) -> Iterator[Rig]:
    """A Ray cluster with one node per number of cores; the first is the head. Main thread only."""
    from ray.cluster_utils import Cluster

    folder.mkdir(parents=True, exist_ok=True)
    paths = os.pathsep.join([str(INJECTED), str(REPOSITORY)])
    before = dict(os.environ)
    os.environ.update(
        FAULTS=str(folder),
        PYTHONPATH=paths,
        OMP_NUM_THREADS="1",
        PYTHONWARNINGS="ignore",
    )
    started = Rig(folder)
    started.plan()
    head = {
        "num_cpus": cpus[0],
        "include_dashboard": True,  # without it, killed trials leave their placement groups
        "dashboard_host": "127.0.0.1",
        "dashboard_port": free_port(),
    }
    try:
        started.cluster = Cluster(initialize_head=True, head_node_args=head)
        started.nodes = [started.cluster.add_node(num_cpus=count) for count in cpus[1:]]
        yield started
    finally:
        started.end()
        os.environ.clear()
        os.environ.update(before)


def job_file(storage: Path, table: Path, **sections: Any) -> Path:
    """Job file with two sites, on digits; nothing is measured."""
    values = {
        "name": "faulty",
        "data": {"source": "digits", "resolution": 16},
        "space": {
            "stem": {"channels": 8, "stride": 2},
            "stages": [{"width": 8, "blocks": 2, "stride": 1}],
            "kernels": [3, 5],
            "expansions": [3, 6],
            "head": 16,
        },
        "targets": {"control": {"table": str(table)}},
        "cases": [{"target": "control", "budgets_ms": ["110%"]}],
        "search": {
            "warmup_epochs": 2,
            "epochs": 6,
            "batch_size": 128,
            "alpha_every": 2,
            "architecture_share": 0.2,
        },
        "cluster": {"workers": 2},
        "storage": str(storage),
        **sections,
    }
    path = storage / "faulty.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return path


def latency_rows(folder: Path) -> list[dict[str, Any]]:
    """Latencies of all parts of that space; they increase with the kernel size."""
    from tests.support.latency_tables import rows_of
    from tests.support.worker_context import (
        tiny_job,  # not in the processes of Ray: they import this
    )

    return rows_of(tiny_job(folder).space.build(10, 1, 16))


def searched(storage: Path) -> dict[str, Any]:
    """Result of the one case that searches."""
    results = [json.loads(p.read_text()) for p in storage.glob("faulty/cases/*/result.json")]
    return next(result for result in results if result["kind"] == "search")
