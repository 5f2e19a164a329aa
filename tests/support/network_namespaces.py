"""Virtual hosts on this machine: network namespaces connected by a bridge; requires root.

They cannot reach other machines. Services of this machine are reached at `Network.address`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

IS_REQUIRED = os.environ.get("NETWORK_TESTS") == "required"
CAN_BE_MADE = os.geteuid() == 0 and shutil.which("ip") is not None

needs_hosts = pytest.mark.skipif(
    not CAN_BE_MADE and not IS_REQUIRED,
    reason="makes network namespaces: needs root, and ip: apt-get install iproute2",
)


CABLE = "eth0"
"""Name of the network device on a host."""


def run(command: str) -> str:
    """Run a command and return its output."""
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


@dataclass
class Host:
    """A virtual host with its own address, temporary folder and home."""

    name: str
    address: str
    link: str
    """Device at the bridge that is connected to the host."""
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def prefix(self) -> list[str]:
        """Start of a command line that runs a program on this host."""
        return ["ip", "netns", "exec", self.name]

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], log: str
    ) -> subprocess.Popen[bytes]:
        """Start a program on this host; its output goes to the file `log` in the host's folder."""
        own = {"HOME": str(self.folder), "TMPDIR": str(self.folder)}
        with (self.folder / log).open("ab") as file:
            started = subprocess.Popen(
                [*self.prefix, *command],
                env={**os.environ, **environment, **own},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(started)
        return started

    def cut_off(self) -> None:
        """Disconnect the host from the network."""
        run(f"ip link set {self.link} down")

    def join(self) -> None:
        """Connect the host again."""
        run(f"ip link set {self.link} up")

    def end(self) -> None:
        """Kill all processes of the host, and remove it."""
        for _ in range(50):
            left = run(f"ip netns pids {self.name}").split()
            if not left:
                break
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.1)
        for process in self.processes:
            process.wait()
        run(f"ip netns del {self.name}")


@dataclass(frozen=True)
class Network:
    """Hosts that can reach each other and this machine."""

    address: str
    """Address of this machine, as seen by the hosts."""
    hosts: list[Host]


@contextmanager
def network(count: int) -> Iterator[Network]:
    """Create `count` hosts for the duration of the block.

    Their folders have short names, since paths of sockets may have 107 characters at most.
    """
    number = os.getpid() % 4096
    prefix, mark = f"10.{192 + number // 256}.{number % 256}", f"px{number}"
    hosts: list[Host] = []
    folder = Path(tempfile.mkdtemp(prefix="px-", dir="/tmp"))
    run(f"ip link add {mark} type bridge")
    try:
        run(f"ip addr add {prefix}.1/24 dev {mark}")
        run(f"ip link set {mark} up")
        for i in range(count):
            hosts.append(_host(folder, mark, i, f"{prefix}.{i + 2}"))
        yield Network(f"{prefix}.1", hosts)
    finally:
        for host in hosts:
            host.end()
        run(f"ip link del {mark}")
        shutil.rmtree(folder, ignore_errors=True)


def _host(folder: Path, mark: str, number: int, address: str) -> Host:
    name, link = f"{mark}-{number}", f"{mark}h{number}"
    here = folder / str(number)
    here.mkdir()
    run(f"ip netns add {name}")
    host = Host(name, address, link, here)
    try:
        run(f"ip link add {link} type veth peer name {CABLE} netns {name}")
        run(f"ip link set {link} master {mark} up")
        run(f"ip -n {name} addr add {address}/24 dev {CABLE}")
        run(f"ip -n {name} link set lo up")
        run(f"ip -n {name} link set {CABLE} up")
    except BaseException:
        host.end()
        raise
    return host
