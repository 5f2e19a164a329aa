"""A separate PostgreSQL server on a free port of this host, removed afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.head import free_port

USER, PASSWORD = "proxyless", "hunter2-of-postgres"


def programs() -> Path | None:
    """Folder of initdb and pg_ctl, or None if they are not installed."""
    initdb = shutil.which("initdb")
    if initdb:
        return Path(initdb).resolve().parent
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return candidates[-1].parent if candidates else None


@contextmanager
def postgres() -> Iterator[int]:
    """Run a server with an empty database `mlflow` while the block runs; yield its port."""
    at, port = programs(), free_port()
    assert at is not None
    folder = Path(
        tempfile.mkdtemp(prefix="postgres-", dir="/tmp")
    )  # root's default one is not accessible to others
    data, secret = folder / "data", folder / "password"
    secret.write_text(PASSWORD)
    who = _not_root(folder)
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"
    start = ["-D", data, "-l", folder / "log", "-w", "-t", "60"]
    try:
        _run(
            [at / "initdb", "-D", data, "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}"],
            who,
        )
        _run([at / "pg_ctl", *start, "-o", options, "start"], who)
        try:
            arguments = ["-h", "127.0.0.1", "-p", str(port), "-U", USER, "mlflow"]
            _run(
                [at / "createdb", *arguments], who | {"env": {**os.environ, "PGPASSWORD": PASSWORD}}
            )
            yield port
        finally:
            _run([at / "pg_ctl", "-D", data, "-m", "immediate", "stop"], who)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _not_root(folder: Path) -> dict[str, Any]:
    """User arguments for `subprocess.run`: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _run(command: list[Any], who: dict[str, Any]) -> None:
    subprocess.run(
        list(map(str, command)),
        check=True,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # a pipe would be kept open by the server
        timeout=120,
        **who,
    )
