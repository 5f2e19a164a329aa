"""A separate tracking server: `mlflow server` on a free port of this host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.head import free_port

START_S = 120
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that tests do not need
}


@contextmanager
def mlflow_server(
    folder: Path,
    backend: str | None = None,
    options: Sequence[str] | None = None,
    host: str = "127.0.0.1",
) -> Iterator[int]:
    """Run a server that stores everything in `folder` while the block runs; yield its port.

    Args:
        folder: an existing folder.
        backend: database of the runs; default: a SQLite file in `folder`.
        options: storage of the artifacts; default: served from `folder`.
        host: address of this machine on which it listens.
    """
    port = free_port(host=host)
    artifacts = ["--artifacts-destination", str(folder / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    command += ["--backend-store-uri", backend or f"sqlite:///{folder}/server.db", "--workers", "1"]
    command += artifacts if options is None else options
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | ENVIRONMENT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(server, f"http://{host}:{port}/health", folder / "server.log")
        yield port
    finally:
        _end(server)


def _wait_for(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"mlflow server did not start:\n{log.read_text()[-2000:]}")


def _end(server: subprocess.Popen[bytes]) -> None:
    """Kill the server and its workers, which share a process group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
