"""Connect to Ray: the one that runs, or one of our own.

Three ways in: `connect` for a driver, `submit` for who hands in a job, and on the command line

    python -m cluster.connect head              start a head that stays, in this folder
    python -m cluster.connect stop              stop exactly that one
    python -m cluster.connect submit JOB ...    run a job file on that, or on one of its own
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.head import NODE_SETTINGS, HeadProcesses, LocalHead
from cluster.jobs_api import ClusterError, NobodyAnswersError, ensure_token, running_head
from cluster.ray_internals import dashboard_url
from cluster.submit import submit

__all__ = ["Cluster", "ClusterError", "LocalHead", "connect", "running_head", "submit"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The Ray that a driver is connected to."""

    cpus: int
    gpus: int
    nodes: int
    dashboard_url: str
    """Empty if there is none."""

    started: bool
    """Whether it was started for this driver, and ends with it."""


@contextmanager
def connect() -> Iterator[Cluster]:
    """Connects this process to Ray while the block runs.

    Attaches inside a Ray job, or where RAY_ADDRESS names a Ray; otherwise starts one on this
    machine and stops it afterwards. A process that is connected already stays so.

    Raises:
        ClusterError: the Ray that RAY_ADDRESS names cannot be had.
    """
    import ray

    if ray.is_initialized():
        yield _facts(started=False)
        return
    address = _driver_address()
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it is on, on purpose
    ensure_token()
    try:
        _init(address)
        yield _facts(started=address == "local")
    finally:
        ray.shutdown()


def _driver_address() -> str:
    """What `ray.init` takes, from what RAY_ADDRESS says."""
    named = os.environ.get("RAY_ADDRESS") or "local"
    if not named.startswith(("http://", "https://")):
        return named
    head = _read_head()
    if head.get("address") != named:
        raise ClusterError(
            f"RAY_ADDRESS is {named}, which takes jobs and no drivers: "
            "hand the job in with `ray job submit`, or unset RAY_ADDRESS to run it on this machine"
        )
    return (Path(head["temp_dir"]) / "ray_current_cluster").read_text().strip()


def _init(address: str) -> None:
    import ray

    # Without a dashboard, killed trials leak their placement groups, and later ones hang.
    local = {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
    if address == "local":
        os.environ |= NODE_SETTINGS
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.WARNING,
            **(local if address == "local" else {}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"cannot connect to Ray ({address}): {error}") from error


def _facts(started: bool) -> Cluster:
    import ray

    resources = ray.cluster_resources()
    url = dashboard_url()
    return Cluster(
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        nodes=sum(node["Alive"] for node in ray.nodes()),
        dashboard_url=f"http://{url}" if url else "",
        started=started,
    )


def start_head(directory: str | Path = ".") -> str:
    """Starts a head that stays, whose jobs run in `directory`; returns its address.

    Raises:
        ClusterError: one runs already, or it does not start.
    """
    try:
        running = running_head()
    except NobodyAnswersError:  # RAY_ADDRESS is left from a head that is gone
        running = None
    if running:
        raise ClusterError(f"a Ray head runs already, at {running}; use it, or stop it first")
    if _head_processes(_read_head()):
        raise ClusterError("a head that was started here runs already; stop it first")
    head = LocalHead(directory, is_detached=True).start()
    state = {
        "format": "ray-head/1",
        "pid": head.processes.pid,
        "mark": head.processes.mark,
        "address": head.address,
        "temp_dir": str(head.temp_dir),
    }
    path = _head_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(state, indent=2) + "\n")
    return head.address


def stop_head() -> None:
    """Stops the head that `start_head` started, with its jobs, and nothing else.

    Raises:
        ClusterError: none is known.
    """
    head = _read_head()
    processes = _head_processes(head)
    _head_file().unlink(missing_ok=True)
    if not processes:
        raise ClusterError("no head runs that was started by `head`")
    processes.stop()
    shutil.rmtree(head["temp_dir"], ignore_errors=True)


def _head_file() -> Path:
    """Where the head is remembered that outlives its starter."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "proxyless" / "head.json"


def _read_head() -> dict[str, Any]:
    try:
        head = json.loads(_head_file().read_text())
    except (OSError, ValueError):
        return {}
    return head if isinstance(head, dict) else {}


def _head_processes(head: dict[str, Any]) -> HeadProcesses | None:
    """The processes of the head that is remembered, if any of them lives."""
    if not head:
        return None
    processes = HeadProcesses(pid=head["pid"], mark=head["mark"])
    return processes if processes.find() else None


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster.connect", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", choices=["head", "stop", "submit"])
    parser.add_argument("job", nargs="?", help="job file, for submit")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="handed to the job file")
    given = parser.parse_args(words)
    try:
        if given.action == "submit":
            if not given.job:
                parser.error("submit needs a job file")
            return submit(given.job, arguments=given.arguments)
        sys.stdout.write(_started() if given.action == "head" else _stopped())
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _started() -> str:
    """Starts the head; what a person pastes into another shell."""
    address = start_head()
    bin_folder = Path(sys.executable).parent
    return (
        f"Ray runs at {address}. In a shell that submits jobs:\n\n"
        f"export RAY_ADDRESS={address} RAY_AUTH_MODE=token\n"
        f'export PATH={shlex.quote(str(bin_folder))}:"$PATH"\n\n'
    )


def _stopped() -> str:
    stop_head()
    return "Ray is stopped.\n"


if __name__ == "__main__":
    sys.exit(main())
