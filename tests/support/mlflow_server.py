"""A tracking server of its own: `mlflow server` on a free port of this host."""

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
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that nobody needs here
}


@contextmanager
def mlflow_server(
    folder: Path,
    backend: str | None = None,
    options: Sequence[str] | None = None,
    host: str = "127.0.0.1",
) -> Iterator[int]:
    """The port of a server that keeps everything in `folder`, as long as the block.

    Args:
        folder: exists.
        backend: where runs are kept; a SQLite file in `folder` if left out.
        options: where artifacts are kept; served from `folder` if left out.
        host: the address of this machine at which it is reached.
    """
    port = free_port(host=host)
    artifacts = ["--artifacts-destination", str(folder / "artifacts")]
    words = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    words += ["--backend-store-uri", backend or f"sqlite:///{folder}/server.db", "--workers", "1"]
    words += artifacts if options is None else options
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(
            words,
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
    """At once, and its workers too: they are of its process group, which nobody else is in."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
