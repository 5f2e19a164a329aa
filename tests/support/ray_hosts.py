"""A Ray cluster on two virtual hosts, and jobs that are submitted from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.head import ADDRESSES, NODE_SETTINGS, client_environment
from cluster.jobs_api import ClusterError, JobsApi
from tests.support.network_namespaces import Host, Network

PORT, DASHBOARD_PORT = 6379, 8265
"""Ports on the virtual hosts, where nothing else listens."""
START_S = 120.0


@dataclass
class Cluster:
    """A head and a worker node, each on its own host with one core."""

    head: Host
    worker: Host
    folder: Path
    is_wanted: bool = True
    starts: int = 0
    """Number of starts of the worker node."""

    @property
    def address(self) -> str:
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the nodes and of clients."""
        values = client_environment("") | NODE_SETTINGS
        values |= {"RAY_AUTH_TOKEN_PATH": str(self.folder / "token"), "OMP_NUM_THREADS": "1"}
        return {name: value for name, value in values.items() if name not in ADDRESSES}

    def start(self, host: Host, *options: str) -> subprocess.Popen[bytes]:
        """Start a node."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        command += [f"--node-ip-address={host.address}", f"--temp-dir={host.folder}/ray"]
        command += ["--disable-usage-stats", "--object-store-memory=300000000", *options]
        return host.start(command, self.environment, "start.log")

    def start_head(self) -> None:
        """Start the head and wait until it answers."""
        options = ["--head", f"--port={PORT}", f"--dashboard-port={DASHBOARD_PORT}"]
        started = self.start(self.head, *options, f"--dashboard-host={self.head.address}")
        deadline = time.monotonic() + START_S
        while True:
            try:
                JobsApi(self.address).version()
                return
            except ClusterError:
                if started.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.head.folder / "start.log").read_text()) from None
                time.sleep(0.2)

    def submit(self, job_file: Path, told: Told | None = None) -> Told:
        """Submit a job from outside the cluster, and follow it to its end."""
        arguments = ["submit", f"jobs/{job_file.name}", "--address", self.address]
        program = subprocess.Popen(
            [sys.executable, "-m", "orchestration", *arguments, "--aws-credentials"],
            cwd=job_file.parents[1],
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        told = told or Told([])
        told.follow(program)
        return told

    def keep_worker(self) -> None:
        """Restart the worker node whenever it ends, as Kubernetes does; body of a thread."""
        while self.is_wanted:
            self.starts += 1
            node = self.start(self.worker, f"--address={self.head.address}:{PORT}")
            while self.is_wanted and node.poll() is None:
                time.sleep(0.5)


@contextmanager
def cluster(made: Network, folder: Path) -> Iterator[Cluster]:
    """Run a cluster whose token is in the folder."""
    (folder / "token").write_text("t" * 40)
    (folder / "token").chmod(0o600)
    started = Cluster(*made.hosts, folder)
    keeper = threading.Thread(target=started.keep_worker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        started.start_head()
        keeper.start()
        try:
            yield started
        finally:
            started.is_wanted = False
            keeper.join()


@dataclass
class Told:
    """Output of a program, and actions to run when certain lines appear."""

    watched: list[tuple[Callable[[str], bool], Callable[[], None]]]
    lines: list[tuple[float, str]] = field(default_factory=list)
    code: int = -1

    @property
    def said(self) -> str:
        return "".join(line for _, line in self.lines)

    def follow(self, program: subprocess.Popen[str]) -> None:
        """Read the output to its end; each action runs once, in the order of the list."""
        threads = []
        with program:
            for line in program.stdout or ():
                self.lines.append((time.monotonic(), line))
                if self.watched and self.watched[0][0](line):
                    threads.append(threading.Thread(target=self.watched.pop(0)[1]))
                    threads[-1].start()
            self.code = program.wait()
        for thread in threads:
            thread.join()
