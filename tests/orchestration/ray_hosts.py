"""A Ray on two hosts of a network of their own: a head, and a worker node that comes again."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.head import ADDRESSES, STARTS, client_environment
from cluster.jobs_api import ClusterError, JobsApi
from tests.hosts import Host, Network

PORT, DASHBOARD_PORT = 6379, 8265
"""Of hosts of their own, where nothing else listens."""
START_S = 120.0


@dataclass
class Cluster:
    """A head and a worker node, each on a host of its own with one core."""

    head: Host
    worker: Host
    folder: Path
    is_wanted: bool = True
    starts: int = 0
    """Of the worker node."""

    @property
    def address(self) -> str:
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """Of its nodes, and of who uses it."""
        given = client_environment("") | STARTS
        given |= {"RAY_AUTH_TOKEN_PATH": str(self.folder / "token"), "OMP_NUM_THREADS": "1"}
        return {name: value for name, value in given.items() if name not in ADDRESSES}

    def start(self, host: Host, *options: str) -> subprocess.Popen[bytes]:
        """A node."""
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        words += [f"--node-ip-address={host.address}", f"--temp-dir={host.folder}/ray"]
        words += ["--disable-usage-stats", "--object-store-memory=300000000", *options]
        return host.start(words, self.environment, "start.log")

    def start_head(self) -> None:
        """Returns when it answers."""
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

    def keep_worker(self) -> None:
        """Start the worker node again whenever it ends, as Kubernetes does; body of a thread."""
        while self.is_wanted:
            self.starts += 1
            node = self.start(self.worker, f"--address={self.head.address}:{PORT}")
            while self.is_wanted and node.poll() is None:
                time.sleep(0.5)


@contextmanager
def cluster(made: Network, folder: Path) -> Iterator[Cluster]:
    """One whose token is in the folder."""
    (folder / "token").write_text("t" * 40)
    (folder / "token").chmod(0o600)
    one = Cluster(*made.hosts, folder)
    keeper = threading.Thread(target=one.keep_worker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        one.start_head()
        keeper.start()
        try:
            yield one
        finally:
            one.is_wanted = False
            keeper.join()
