"""Connection to Ray: a running cluster, or one started for the purpose.

`connect` is for drivers, `submit` for submitting jobs, and the command line has

    python -m cluster.connect head              start a head in this folder that keeps running
    python -m cluster.connect stop              stop exactly that head
    python -m cluster.connect submit JOB ...    run a job file on it, or on a head of its own
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
    """The Ray cluster that a driver is connected to."""

    cpus: int
    gpus: int
    nodes: int
    dashboard_url: str
    """Empty if there is none."""

    started: bool
    """Whether it was started for this driver, and stops with it."""


@contextmanager
def connect() -> Iterator[Cluster]:
    """Connect this process to Ray while the block runs.

    Attaches to the cluster inside a Ray job, or if RAY_ADDRESS is set; otherwise starts a cluster
    on this machine and stops it afterwards. A process that is already connected stays connected.

    Raises:
        ClusterError: the cluster in RAY_ADDRESS cannot be used.
    """
    import ray

    if ray.is_initialized():
        yield _facts(started=False)
        return
    address = _driver_address()
    logging.getLogger("ray._private.authentication").setLevel(
        logging.ERROR
    )  # it logs that token authentication is on
    ensure_token()
    try:
        _init(address)
        yield _facts(started=address == "local")
    finally:
        ray.shutdown()


def _driver_address() -> str:
    """Address for `ray.init`, derived from RAY_ADDRESS."""
    address = os.environ.get("RAY_ADDRESS") or "local"
    if not address.startswith(("http://", "https://")):
        return address
    head = _read_head()
    if head.get("address") != address:
        raise ClusterError(
            f"RAY_ADDRESS is {address}, which takes jobs and no drivers: "
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
    """Start a head that keeps running and whose jobs run in `directory`; return its address.

    Raises:
        ClusterError: a head is running already, or it does not start.
    """
    try:
        running = running_head()
    except NobodyAnswersError:  # RAY_ADDRESS names a head that no longer runs
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
    """Stop the head that `start_head` started, including its jobs, and nothing else.

    Raises:
        ClusterError: there is no such head.
    """
    head = _read_head()
    processes = _head_processes(head)
    _head_file().unlink(missing_ok=True)
    if not processes:
        raise ClusterError("no head runs that was started by `head`")
    processes.stop()
    shutil.rmtree(head["temp_dir"], ignore_errors=True)


def _head_file() -> Path:
    """File with the address and processes of the head that `start_head` started."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "proxyless" / "head.json"


def _read_head() -> dict[str, Any]:
    try:
        head = json.loads(_head_file().read_text())
    except (OSError, ValueError):
        return {}
    return head if isinstance(head, dict) else {}


def _head_processes(head: dict[str, Any]) -> HeadProcesses | None:
    """Processes of the recorded head, or None if none of them is alive."""
    if not head:
        return None
    processes = HeadProcesses(pid=head["pid"], mark=head["mark"])
    return processes if processes.find() else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster.connect", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", choices=["head", "stop", "submit"])
    parser.add_argument("job", nargs="?", help="job file, for submit")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="handed to the job file")
    args = parser.parse_args(argv)
    try:
        if args.action == "submit":
            if not args.job:
                parser.error("submit needs a job file")
            return submit(args.job, arguments=args.arguments)
        sys.stdout.write(_started() if args.action == "head" else _stopped())
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _started() -> str:
    """Start the head; return the shell commands for using it."""
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
