"""Client of Ray's job submission API over HTTP: what is needed to submit and follow a job.

Importing Ray takes a second or two, and `ray job submit` waits another five at the end, repeats the
output of a failed job and reports every failure as 1. This client needs the standard library only
and reports the exit code of the driver.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DEFAULT_ADDRESS = "http://127.0.0.1:8265"

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
"""States of a job that no longer runs."""


class ClusterError(Exception):
    """Ray cannot be reached, started or used."""


class NobodyAnswersError(ClusterError):
    """Nothing listens at the address, or it does not answer in time."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """State of a job, as reported by Ray."""

    status: str
    """PENDING, RUNNING, or one of `ENDED`."""

    message: str
    exit_code: int | None
    """Exit code of the driver, or minus the signal that ended it; None if it never ran."""

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class JobsApi:
    """The jobs of one Ray head."""

    def __init__(self, address: str, timeout_s: float = 10.0) -> None:
        """Describe the connection; nothing is sent yet.

        Args:
            address: address of the dashboard, e.g. http://127.0.0.1:8265.
            timeout_s: time limit of each request.
        """
        self.address = address.rstrip("/")
        self._timeout_s = timeout_s

    def version(self) -> str:
        """Version of the Ray cluster, if it accepts the token.

        Raises:
            NobodyAnswersError: nothing answers.
            ClusterError: the server is not a Ray dashboard, or it rejects the token.
        """
        answer = self._ask("GET", "/api/version")
        if not isinstance(answer, dict) or "ray_version" not in answer:
            raise ClusterError(f"what answers at {self.address} is not a Ray dashboard")
        return str(answer["ray_version"])

    def state(self, job: str) -> JobState:
        answer = self._ask("GET", f"/api/jobs/{job}")
        return JobState(
            status=answer["status"],
            message=answer.get("message") or "",
            exit_code=answer.get("driver_exit_code"),
        )

    def logs(self, job: str) -> str:
        """Output of the driver so far."""
        return str(self._ask("GET", f"/api/jobs/{job}/logs")["logs"] or "")

    def stop(self, job: str) -> None:
        """Send SIGTERM to the driver; return without waiting for its end."""
        self._ask("POST", f"/api/jobs/{job}/stop")

    def _ask(self, method: str, path: str) -> Any:
        try:
            status, body = self._exchange(method, path)
        except OSError as error:
            raise NobodyAnswersError(f"nothing answers at {self.address}: {error}") from error
        except http.client.HTTPException as error:
            raise ClusterError(f"what answers at {self.address} is not a Ray dashboard") from error
        if status in (401, 403):
            raise ClusterError(f"the Ray at {self.address} refuses {_token_text()}")
        if status != 200:
            raise ClusterError(f"{self.address}{path} answers {status}: {body[:500].strip()}")
        try:
            return json.loads(body)
        except ValueError as error:
            raise ClusterError(f"what answers at {self.address} is not a Ray dashboard") from error

    def _exchange(self, method: str, path: str) -> tuple[int, str]:
        parts = urlsplit(self.address)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if parts.scheme not in kinds or not parts.hostname:
            raise ClusterError(f"{self.address} is no address; expected e.g. http://127.0.0.1:8265")
        connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=self._timeout_s)
        try:
            auth_token = token()
            headers = {"Authorization": f"Bearer {auth_token}"} if auth_token else {}
            connection.request(method, parts.path + path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", errors="replace")
        finally:
            connection.close()


def running_head() -> str | None:
    """Address of the Ray cluster to submit to: that in RAY_ADDRESS, or one on this machine.

    RAY_ADDRESS=local means none of the running ones.

    Returns:
        The address of its dashboard, or None if RAY_ADDRESS is not set and no cluster runs.

    Raises:
        ClusterError: the cluster in RAY_ADDRESS does not answer, or the server is not a Ray
            dashboard or rejects the token.
    """
    named = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or ""
    if named == "local":
        return None
    address = _dashboard_of(named) if named else DEFAULT_ADDRESS
    try:
        JobsApi(address).version()
    except NobodyAnswersError as error:
        if named:
            message = f"{error}; start that Ray, or unset RAY_ADDRESS"
            raise NobodyAnswersError(message) from error
        return None
    except ClusterError as error:
        raise ClusterError(f"{error}; set RAY_ADDRESS=local to start a Ray beside it") from error
    return address


def _dashboard_of(address: str) -> str:
    """Address of the dashboard for an address in one of Ray's forms: `auto`, `host:6379`, a URL."""
    if address.startswith(("http://", "https://")):
        return address
    from ray.dashboard.utils import get_address_for_submission_client

    try:
        return str(get_address_for_submission_client(address))
    except Exception as error:  # Ray raises many types
        raise ClusterError(
            f"RAY_ADDRESS is {address}, and no Ray is found there: {error}"
        ) from error


def token() -> str | None:
    """The token that Ray's own clients would send from this process, if there is one."""
    named = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if named:
        return named
    path = _token_path()
    return path.read_text().strip() if path.is_file() else None


def ensure_token() -> None:
    """Create a token for this user, readable by this user only, unless there is one."""
    if token():
        return
    path = _token_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Exclusive: if another process creates the token at the same moment, use that one.
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    with open(file, "w") as stream:
        stream.write(secrets.token_hex(32))


def _token_path() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _token_text() -> str:
    if os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return "the token in RAY_AUTH_TOKEN"
    path = _token_path()
    return (
        f"the token in {path}" if path.is_file() else f"requests without a token, as {path} lacks"
    )
