"""A Ray elsewhere: whether it can take a job, and what of this environment goes along with it.

A job is entered with the token of the cluster, so an address holds no login. Whoever has the token
can read what a job was given: keys of S3 go along only where a person says so.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from urllib.parse import SplitResult, urlsplit

from cluster.jobs_api import ClusterError, JobsApi, NobodyAnswersError, token
from cluster.store import ENDPOINTS, REGIONS

EXAMPLE = "http://127.0.0.1:8265"

S3_PLACE = ENDPOINTS + REGIONS

S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Environment variables that open it."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def checked_address(address: str) -> str:
    """The address of a dashboard, as given but for a slash at its end.

    Raises:
        ClusterError: it is none; says what one looks like, and no login that is in it.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:  # a port that is no number, brackets that do not match
        raise ClusterError(f"--address is no address: {error}; expected e.g. {EXAMPLE}") from None
    if "@" in parts.netloc:
        raise ClusterError(
            "--address holds a login; a Ray takes a token instead, from RAY_AUTH_TOKEN_PATH or "
            f"~/.ray/auth_token, and an address like {EXAMPLE}"
        )
    if port == 0 or not _is_dashboard(parts) or address != "".join(address.split()):
        raise ClusterError(
            f"--address is {address!r}; expected http:// or https://, a host and a port, "
            f"e.g. {EXAMPLE}"
        )
    return address.rstrip("/")


def _is_dashboard(parts: SplitResult) -> bool:
    is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    return is_web and not parts.query and not parts.fragment


def is_in_the_clear(address: str) -> bool:
    """Whether others on the way can read the token and what a job is given."""
    parts = urlsplit(address)
    return parts.scheme == "http" and parts.hostname not in LOOPBACK


def check_reachable(address: str) -> None:
    """Asks the Ray there whether it takes jobs from here.

    Raises:
        ClusterError: nothing answers, the token is refused, or its version is another.
    """
    try:
        there = JobsApi(address).version()
    except NobodyAnswersError as error:
        raise NobodyAnswersError(
            f"{error}; start that Ray, or open the way to it: kubectl port-forward, ray dashboard"
        ) from error
    except ClusterError as error:
        way_out = "put the token of that Ray into a file and its path into RAY_AUTH_TOKEN_PATH"
        hint = f"; {way_out}" if "refuses" in str(error) else ""
        raise ClusterError(f"{error}{hint}") from error
    here = version("ray")
    if there.split(".")[:2] != here.split(".")[:2]:
        raise ClusterError(
            f"the Ray at {address} is {there}, and this project runs on {here}; "
            "start that Ray from the image of this checkout (cluster/Dockerfile)"
        )


def auth_mode() -> dict[str, str]:
    """What Ray's own client has to be told: to send the token, if there is one."""
    return {"RAY_AUTH_MODE": "token" if token() else os.environ.get("RAY_AUTH_MODE", "disabled")}


def s3_names(with_keys: bool) -> tuple[str, ...]:
    """Environment variables about S3 that go along with a job.

    Raises:
        ClusterError: the keys are wanted and are not there.
    """
    if not with_keys:
        return S3_PLACE
    missing = [name for name in S3_KEYS[:2] if not os.environ.get(name)]
    if missing:
        raise ClusterError(
            f"--aws-credentials: {' and '.join(missing)} not set in the environment; export them, "
            "or leave the option out where the cluster has keys of its own"
        )
    return S3_PLACE + S3_KEYS
