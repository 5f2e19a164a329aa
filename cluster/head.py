"""A Ray head on this machine, started and stopped together with all its processes.

A head has its own temporary folder, free ports and process session, so that several can run side by
side: Ray finds "the" cluster of a machine through its temporary folder, and a job of one head would
attach to another head that shares the folder.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

import psutil

from cluster.jobs_api import ClusterError, JobsApi, NobodyAnswersError, ensure_token

DASHBOARD_PORT = 8265
MARK = "PROXYLESS_HEAD"
"""Environment variable that marks the processes of a head, including the drivers of its jobs."""

NODE_SETTINGS = {
    "RAY_worker_maximum_startup_concurrency": "32",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
}
"""Environment of the process that starts a node; the image (Dockerfile) sets it too.

The first limits how many processes Ray starts at a time. Ray warns when four times as many are
alive; two concurrent cases on two cores have twelve, most of which only wait. The second is the
time after which an idle process is stopped if there are more processes than cores. With Ray's
default of one second, image readers were stopped whenever training fell behind, and starting the
next one took some 10 s of a core.
"""

ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Environment variables with the address of Ray for clients; the second takes precedence."""

MAX_TEMP_DIR = 40
"""Longest temporary folder, in characters. Ray's sockets are some 65 characters below it, and
their paths may have 107.
"""

PORTS = range(20_000, 30_000)
"""Ports below the ephemeral range of the system and above Ray's worker ports. Ray opens a port
given on the command line seconds later, after dozens of others, and exits if it is taken by then.
"""

STOP_S = 10.0
"""Time for a head to stop by itself before it is killed."""


@dataclass(frozen=True, kw_only=True)
class HeadProcesses:
    """Identification of the processes of a head, from which they can be found again."""

    pid: int
    """Process of `ray start`, the leader of the session."""

    mark: str

    def find(self, is_vouched: bool = False) -> list[psutil.Process]:
        """Alive processes of the head: its session, and drivers, which have other sessions.

        Args:
            is_vouched: whether the session is known to belong to the head. Otherwise this requires
                a marked process in it, since its number may have been reused by now.
        """
        alive = [process for process in psutil.process_iter() if _is_alive(process)]
        marked = {process.pid for process in alive if _mark(process) == self.mark}
        session = {process.pid for process in alive if _session(process) == self.pid}
        # The mark alone misses some: Ray's workers overwrite their environment with a title.
        ours = marked | session if is_vouched or marked & session else marked
        return [process for process in alive if process.pid in ours]

    def stop(self) -> None:
        """Stop all processes and wait for their end; the leader first, which stops most others."""
        remaining = self.find()
        is_vouched = any(_session(process) == self.pid for process in remaining)
        _send([process for process in remaining if process.pid == self.pid], signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while remaining and time.monotonic() < deadline + STOP_S:
            psutil.wait_procs(remaining, timeout=0.2)
            remaining = self.find(is_vouched)
            if time.monotonic() > deadline:
                _send(remaining, signal.SIGKILL)


class LocalHead:
    """A Ray head that runs while its `with` block does.

    The dashboard listens on 127.0.0.1 only, and every request needs the token of this user.
    `address` and `temp_dir` are valid while the head runs.
    """

    def __init__(
        self,
        directory: str | Path = ".",
        *,
        temp_dir: str | Path | None = None,
        dashboard_port: int = DASHBOARD_PORT,
        is_detached: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        """Describe the head; the `with` block, or `start`, starts it.

        Args:
            directory: working directory of jobs that do not bring one.
            temp_dir: Ray's temporary folder, created at the start and removed at the end; None: a
                new folder.
            dashboard_port: used if it is free, otherwise another port.
            is_detached: whether the head outlives this process.
            options: further options of `ray start`, e.g. `--num-cpus=2`.

        Raises:
            ClusterError: `temp_dir` is too long for Ray's sockets.
        """
        if temp_dir and len(str(temp_dir)) > MAX_TEMP_DIR:
            raise ClusterError(
                f"{temp_dir} is too long for Ray, whose sockets lie in it; "
                f"expected at most {MAX_TEMP_DIR} characters, e.g. /tmp/ray-1"
            )
        self.address = ""
        self.mark = uuid.uuid4().hex
        self._directory, self._dashboard_port = Path(directory), dashboard_port
        self._is_detached, self._options = is_detached, tuple(options)
        self._asked_temp_dir = temp_dir
        self._made_temp_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalHead:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def temp_dir(self) -> Path:
        """Ray's temporary folder."""
        assert self._made_temp_dir is not None
        return self._made_temp_dir

    @property
    def processes(self) -> HeadProcesses:
        """Identification of the processes of a running head."""
        assert self._process is not None
        return HeadProcesses(pid=self._process.pid, mark=self.mark)

    def start(self, timeout_s: float = 90.0) -> LocalHead:
        """Start the head and wait until it answers; on failure, remove everything.

        Raises:
            ClusterError: the head ended, did not answer in time, or its folder exists already.
        """
        ensure_token()
        port = free_port(self._dashboard_port)
        self.address = f"http://127.0.0.1:{port}"
        self._made_temp_dir = _new_folder(self._asked_temp_dir)
        try:
            self._process = self._spawn(port)
            self._wait_until_it_answers(time.monotonic() + timeout_s)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop all processes of the head and its jobs, and remove its temporary folder."""
        with stop_signals_to(signal.SIG_IGN):  # a second signal must not interrupt the cleanup
            if self._process is not None:
                self.processes.stop()
                self._process.wait()
                self._process = None
            if self._made_temp_dir is not None:
                shutil.rmtree(self._made_temp_dir, ignore_errors=True)
                self._made_temp_dir = None

    def has_ended(self) -> bool:
        """Whether the head ended by itself, or was never started."""
        return self._process is None or self._process.poll() is not None

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
            *("--port=0", "--dashboard-agent-listen-port=0"),
            *("--min-worker-port=0", "--max-worker-port=0"),
            f"--ray-client-server-port={free_port()}",  # 0 is not allowed here
            *(f"--temp-dir={self.temp_dir}", "--disable-usage-stats", *self._options),
        ]
        with open(self.temp_dir / "start.log", "wb") as log:
            return subprocess.Popen(
                command,
                cwd=self._directory,
                env=_head_environment(self.mark),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must stop the job before the head
                preexec_fn=None if self._is_detached else _end_with_parent,
            )

    def _wait_until_it_answers(self, deadline: float) -> None:
        api = JobsApi(self.address)
        while True:
            try:
                api.version()
                return
            except NobodyAnswersError:
                if self.has_ended() or time.monotonic() > deadline:
                    raise ClusterError(f"Ray did not start:\n{self._log_tail()}") from None
                time.sleep(0.1)

    def _log_tail(self) -> str:
        return (self.temp_dir / "start.log").read_text(errors="replace")[-2000:].strip()


def client_environment(address: str) -> dict[str, str]:
    """Environment for clients of the Ray cluster at `address`, e.g. `ray job submit`."""
    environment = {**os.environ, **dict.fromkeys(ADDRESSES, address)}
    environment |= {"RAY_AUTH_MODE": "token", "PATH": _path_with_this_python()}
    for name in ("no_proxy", "NO_PROXY"):  # a proxy cannot reach this machine's loopback addresses
        environment[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1,localhost"]))
    return environment


def _head_environment(mark: str) -> dict[str, str]:
    environment = client_environment("") | {
        # Jobs have ended by then. Ray would wait up to 30 s for services to drain.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        **NODE_SETTINGS,
        MARK: mark,
    }
    return {name: value for name, value in environment.items() if name not in ADDRESSES}


def _path_with_this_python() -> str:
    """PATH with the folder of this Python first: the first line of a job file runs `python`."""
    here = str(Path(sys.executable).parent)
    others = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if entry != here]
    return os.pathsep.join([here, *others])


def free_port(preferred: int | None = None, *, host: str = "127.0.0.1") -> int:
    """Find a port of `host` that nothing listens on: `preferred` if it is free, else another.

    Raises:
        ClusterError: no free port was found.
    """
    ports = random.SystemRandom().sample(PORTS, 100)
    for port in ports if preferred is None else [preferred, *ports]:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return port
    raise ClusterError(f"none of a hundred ports of {host} was free")


def _new_folder(path: str | Path | None) -> Path:
    """Create a folder that must not exist yet, since it is removed with its content later."""
    if path is None:
        short = "/tmp" if os.path.isdir("/tmp") else None  # noqa: S108  # see MAX_TEMP_DIR
        return Path(tempfile.mkdtemp(prefix="ray-", dir=short))
    try:
        Path(path).mkdir(parents=True)
    except OSError as error:
        raise ClusterError(f"cannot make {path} for Ray: {error.strerror}; name another") from error
    return Path(path)


def _end_with_parent() -> None:
    """Make Linux send SIGTERM to the head when this process dies, even if it is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@contextmanager
def stop_signals_to(handler: Callable[[int, FrameType | None], None] | int) -> Iterator[None]:
    """Redirect SIGINT, SIGTERM and SIGHUP to `handler` while the block runs.

    Works in the main thread only; in other threads nothing changes. Signals that were ignored
    before, e.g. under `nohup`, stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.getsignal(kind) for kind in kinds}
    handled = [kind for kind in kinds if before[kind] != signal.SIG_IGN]
    for kind in handled:
        signal.signal(kind, handler)
    try:
        yield
    finally:
        for kind in handled:
            signal.signal(kind, before[kind])


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _send(processes: Sequence[psutil.Process], kind: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(kind)
        except psutil.NoSuchProcess:
            continue
