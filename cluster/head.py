"""A Ray head on this machine: started and stopped with all that belongs to it.

A head has a temporary folder, free ports and a session of processes of its own, so that several
can run side by side: Ray finds "the" cluster of a machine through its temporary folder, and a job
of one head would attach to another that shares it.
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
"""Environment variable that marks the processes of a head, the drivers of its jobs among them."""

NODE_SETTINGS = {
    "RAY_worker_maximum_startup_concurrency": "32",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
}
"""Environment of whoever starts a node; the image (Dockerfile) has it too.

Processes that Ray starts at a time: it warns at four times as many living ones, and on two cores
two cases beside each other have twelve, most of which only wait. How long a process may be idle
where there are more than cores: after Ray's second every reader of images died while training
caught up, and the next took some 10 s of a core to start."""

ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Environment variables that tell clients where Ray is; the second goes before the first."""

MAX_TEMP_DIR = 40
"""Characters. Ray puts sockets some 65 characters below, and their paths end at 107."""

PORTS = range(20_000, 30_000)
"""Below those that a system hands out by itself, and above those of Ray's workers: Ray opens a
port that is named here seconds later, after dozens of its own, and ends if it is taken by then."""

STOP_S = 10.0
"""Time that a head has to end by itself."""


@dataclass(frozen=True, kw_only=True)
class HeadProcesses:
    """What is needed to find the processes of a head again."""

    pid: int
    """`ray start`, leader of the session."""

    mark: str

    def find(self, is_vouched: bool = False) -> list[psutil.Process]:
        """Those alive: the session, and the drivers, which have sessions of their own.

        Args:
            is_vouched: whether the session is known to be that of the head. Otherwise a marked
                process in it has to vouch for it: the number may be another session's by now.
        """
        alive = [process for process in psutil.process_iter() if _is_alive(process)]
        marked = {process.pid for process in alive if _mark(process) == self.mark}
        session = {process.pid for process in alive if _session(process) == self.pid}
        # Not by the mark alone: Ray writes the titles of its workers over their environment.
        ours = marked | session if is_vouched or marked & session else marked
        return [process for process in alive if process.pid in ours]

    def stop(self) -> None:
        """Ends them, the leader first, who ends most of the others; returns when all are gone."""
        left = self.find()
        is_vouched = any(_session(process) == self.pid for process in left)
        _send([process for process in left if process.pid == self.pid], signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while left and time.monotonic() < deadline + STOP_S:
            psutil.wait_procs(left, timeout=0.2)
            left = self.find(is_vouched)
            if time.monotonic() > deadline:
                _send(left, signal.SIGKILL)


class LocalHead:
    """A Ray head that runs while its `with` block does.

    The dashboard listens on 127.0.0.1 alone, and every request needs the token of this user.
    `address` and `temp_dir` hold while it runs.
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
        """Describes the head; the `with` block, or `start`, starts it.

        Args:
            directory: where jobs run that bring no working directory.
            temp_dir: Ray's temporary folder, made now and removed at the end; of any name if None.
            dashboard_port: used if it is free, otherwise another.
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
        """How to find the processes of a head that was started."""
        assert self._process is not None
        return HeadProcesses(pid=self._process.pid, mark=self.mark)

    def start(self, timeout_s: float = 90.0) -> LocalHead:
        """Starts the head and waits until it answers; if that fails, nothing is left of it.

        Raises:
            ClusterError: it ended, or did not answer in time, or its folder is there already.
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
        """Ends all processes of the head and of its jobs, and removes its temporary folder."""
        with stop_signals_to(signal.SIG_IGN):  # or something would be left
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
        words = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
            *("--port=0", "--dashboard-agent-listen-port=0"),
            *("--min-worker-port=0", "--max-worker-port=0"),
            f"--ray-client-server-port={free_port()}",  # takes no 0
            *(f"--temp-dir={self.temp_dir}", "--disable-usage-stats", *self._options),
        ]
        with open(self.temp_dir / "start.log", "wb") as log:
            return subprocess.Popen(
                words,
                cwd=self._directory,
                env=_head_environment(self.mark),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us alone: the job ends first, then the head
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
                    raise ClusterError(f"Ray did not start:\n{self._last_words()}") from None
                time.sleep(0.1)

    def _last_words(self) -> str:
        return (self.temp_dir / "start.log").read_text(errors="replace")[-2000:].strip()


def client_environment(address: str) -> dict[str, str]:
    """The environment for clients of the Ray at `address`, `ray job submit` among them."""
    environment = {**os.environ, **dict.fromkeys(ADDRESSES, address)}
    environment |= {"RAY_AUTH_MODE": "token", "PATH": _path_with_this_python()}
    for name in ("no_proxy", "NO_PROXY"):  # a proxy does not know this machine's own addresses
        environment[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1,localhost"]))
    return environment


def _head_environment(mark: str) -> dict[str, str]:
    environment = client_environment("") | {
        # The jobs have ended before. Ray would wait up to 30 s for services to drain.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        **NODE_SETTINGS,
        MARK: mark,
    }
    return {name: value for name, value in environment.items() if name not in ADDRESSES}


def _path_with_this_python() -> str:
    """PATH with the folder of this Python first: the first line of a job file asks for `python`."""
    here = str(Path(sys.executable).parent)
    others = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if entry != here]
    return os.pathsep.join([here, *others])


def free_port(preferred: int | None = None, *, host: str = "127.0.0.1") -> int:
    """A port of `host` at which nothing listens: `preferred` if it is such a one, or any.

    Raises:
        ClusterError: none was found.
    """
    ports = random.SystemRandom().sample(PORTS, 100)
    for port in ports if preferred is None else [preferred, *ports]:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return port
    raise ClusterError(f"none of a hundred ports of {host} was free")


def _new_folder(path: str | Path | None) -> Path:
    """Makes a folder that was not there: it is going to be removed with all that is in it."""
    if path is None:
        short = "/tmp" if os.path.isdir("/tmp") else None  # noqa: S108  # see MAX_TEMP_DIR
        return Path(tempfile.mkdtemp(prefix="ray-", dir=short))
    try:
        Path(path).mkdir(parents=True)
    except OSError as error:
        raise ClusterError(f"cannot make {path} for Ray: {error.strerror}; name another") from error
    return Path(path)


def _end_with_parent() -> None:
    """Linux ends the head when this process dies without a chance to: SIGTERM on parent's death."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@contextmanager
def stop_signals_to(handler: Callable[[int, FrameType | None], None] | int) -> Iterator[None]:
    """Hands Ctrl-C, SIGTERM and a closed terminal to `handler` while the block runs.

    Only the main thread may do that; in others nothing changes. A signal that was ignored before,
    as under `nohup`, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.getsignal(kind) for kind in kinds}
    heeded = [kind for kind in kinds if before[kind] != signal.SIG_IGN]
    for kind in heeded:
        signal.signal(kind, handler)
    try:
        yield
    finally:
        for kind in heeded:
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
