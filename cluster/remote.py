"""Submission to a remote Ray cluster: compatibility checks, and the environment to pass on.

A job is submitted with the token of the cluster, so an address contains no login. Anyone with the
token can read the environment of a job: S3 keys are passed on only on explicit request.
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
"""Environment variables with S3 credentials."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def checked_address(address: str) -> str:
    """Validate the address of a dashboard; return it without a trailing slash.

    Raises:
        ClusterError: it is not a valid address; the message shows an example, and never a login
            contained in the address.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:  # the port is not a number, or brackets do not match
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
    """Whether the token and the job's environment are sent unencrypted over a network."""
    parts = urlsplit(address)
    return parts.scheme == "http" and parts.hostname not in LOOPBACK


def check_reachable(address: str) -> None:
    """Check that the Ray cluster at an address accepts jobs from here.

    Raises:
        ClusterError: nothing answers, the token is rejected, or the versions differ.
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
    """Environment that makes Ray's own client send the token, if there is one."""
    return {"RAY_AUTH_MODE": "token" if token() else os.environ.get("RAY_AUTH_MODE", "disabled")}


def s3_names(with_keys: bool) -> tuple[str, ...]:
    """Environment variables for S3 that are passed on to a job.

    Raises:
        ClusterError: the keys are requested but not set.
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
