"""Faults on a real Ray of several nodes: what is broken where and when, and that it was broken.

`FAULTS` names a folder. `faults.json` in it lists faults in their order; each happens once, in the
worker and at the step that it names, when all before it have happened. What has happened leaves a
file there, and so does every start of a worker.
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

PATIENCE_S = 600
"""For a worker to come to a step; one start took 10 s alone and 60 s beside other tests."""


@dataclass(frozen=True)
class Fault:
    """Something that breaks in a worker."""

    what: str
    """kill, error, hang, sleep (a pause that is no fault)."""
    rank: int
    step: int
    """Steps that the worker has done since it was started."""


def put(path: Path, text: str) -> None:
    """Write a file that another process may be reading: it sees the old text or the new one."""
    new = path.with_name(f"{path.name}.{os.getpid()}")  # workers of two cases may write one file
    new.write_text(text)
    new.replace(path)


def install(module: Any) -> None:
    """Make the group of a worker break as `faults.json` says; called in processes of the Ray."""
    folder, steps = Path(os.environ["FAULTS"]), [0]
    begin, hear = module.RayProcessGroup.__init__, module.RayProcessGroup.hear

    def counted_begin(group: Any, *words: Any, **named: Any) -> None:
        begin(group, *words, **named)
        with (folder / "starts").open("a") as file:
            file.write(f"{group.rank} {group.size} {os.getpid()} {time.time()}\n")

    def breaking_hear(group: Any, signals: list[float]) -> None:
        hear(group, signals)
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

    module.RayProcessGroup.__init__, module.RayProcessGroup.hear = counted_begin, breaking_hear
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
    """A Ray of several nodes on this machine, and drivers on it."""

    folder: Path
    cluster: Any = None
    nodes: list[Any] = field(default_factory=list)
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    def plan(self, *faults: Fault) -> None:
        """What is to break from now on; what happened before is forgotten."""
        for path in self.folder.glob("*"):
            if path.is_file():
                path.unlink()
        text = json.dumps([vars(fault) for fault in faults])
        put(self.folder / "faults.json", text)

    def pace(self, step_s: float) -> None:
        """Every step takes so much longer from now on."""
        put(self.folder / "pace", str(step_s))

    def victim(self, number: int) -> int:
        """Process in which a fault happened; fails if it did not."""
        return int((self.folder / f"happened-{number}").read_text())

    def starts(self) -> list[tuple[int, int, int, float]]:
        """(rank, size, process, time) of every worker that was started."""
        path = self.folder / "starts"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [line.split() for line in lines]
        return [(int(a), int(b), int(c), float(d)) for a, b, c, d in found]

    def attempts(self) -> int:
        """How often a group of workers was started."""
        return sum(rank == 0 for rank, *_ in self.starts())

    def wait_for_step(self, step: int, rank: int = 0, attempt: int = 1) -> int:
        """Its process, once that worker has done so many steps; fails if the driver ends before."""
        path, driver = self.folder / f"step-{rank}", self.drivers[-1]
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and driver.poll() is None:
            words = path.read_text().split() if path.exists() else []
            if self.attempts() >= attempt and len(words) == 2 and int(words[0]) >= step:
                process = int(words[1])
                if psutil.pid_exists(process):
                    return process
            time.sleep(0.05)
        driver.kill()
        said, _ = driver.communicate()
        raise AssertionError(
            f"worker {rank} did not come to step {step} of start {attempt}; {said}"
        )

    def drive(
        self, job: Path, program: Sequence[str] = ("-m", "orchestration")
    ) -> subprocess.Popen[str]:
        """A driver on this Ray."""
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
        """Tell Ray that a node is going to be taken away, as a cloud does with spot machines."""
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
        words = ["--address", self.cluster.address, "--node-id", node.node_id, *reason]
        ray = Path(sys.executable).with_name("ray")
        subprocess.run(
            [str(ray), "drain-node", *words, "--deadline-remaining-seconds", str(left_s)],
            check=True,
            capture_output=True,
        )

    def end(self) -> None:
        """Nothing that was started here runs on."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
                driver.communicate()
        if self.cluster is not None:
            self.cluster.shutdown()


@contextmanager
def rig(folder: Path, *cpus: int) -> Iterator[Rig]:
    """A Ray with a node of each number of cores; the first is the head. Main thread only."""
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
    made = Rig(folder)
    made.plan()
    head = {
        "num_cpus": cpus[0],
        "include_dashboard": True,  # without it, killed trials leave their placement groups
        "dashboard_host": "127.0.0.1",
        "dashboard_port": free_port(),
    }
    try:
        made.cluster = Cluster(initialize_head=True, head_node_args=head)
        made.nodes = [made.cluster.add_node(num_cpus=count) for count in cpus[1:]]
        yield made
    finally:
        made.end()
        os.environ.clear()
        os.environ.update(before)


def job_file(storage: Path, table: Path, **sections: Any) -> Path:
    """A job of two sites on digits; nothing is measured."""
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


def rows_of_a_board(folder: Path) -> list[dict[str, Any]]:
    """Latencies of all parts of that space; the larger the kernel, the longer."""
    from tests.support.latency_tables import rows_of
    from tests.support.worker_context import (
        tiny_job,  # not in the processes of Ray: they import this
    )

    return rows_of(tiny_job(folder).space.build(10, 1, 16))


def searched(storage: Path) -> dict[str, Any]:
    """The result of the one case that searches."""
    found = [json.loads(p.read_text()) for p in storage.glob("faulty/cases/*/result.json")]
    return next(one for one in found if one["kind"] == "search")
