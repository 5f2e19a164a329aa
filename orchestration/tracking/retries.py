"""Retries of requests to MLflow: which errors are transient, for how long, and who gives up.

MLflow itself retries a failed request up to seven times with doubling waits. That takes minutes
per request, and a request that creates a run is repeated even if the server has executed it. So
MLflow is made to send each request once (`single_requests`), and this module decides on retries. A
request that creates an object is repeated only after looking whether the object exists by now.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import InvalidUrlException, MlflowException
from requests.exceptions import InvalidURL, RequestException, SSLError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

T = TypeVar("T")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0
"""First and longest wait before a retry; waits double."""
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses of transient errors."""
PERMANENT = re.compile(
    r"authentication failed|does not exist|pg_hba|permission denied|no password|unable to open"
    r"|readonly|read-only|malformed|not a database|disk is full|no such (table|column)"
)
"""Texts in errors of databases that are permanent."""
OURS = ("builtins", "orchestration", "cluster")
"""Packages whose errors are raised unchanged."""
NOT_IDEMPOTENT = ("create_", "log_outputs")
"""Prefixes of client methods that are not idempotent."""


class GivenUpError(OSError):
    """Another thread's request failed permanently, or the total time is up."""


class Patience:
    """Retry policy of one recording, shared by all its threads."""

    def __init__(self, request_s: float, total_s: float = float("inf")) -> None:
        """Start the clock of the total time.

        Args:
            request_s: how long a failing request is retried.
            total_s: no request is sent after this time.
        """
        self.request_s, self.total_s = request_s, total_s
        self.has_repeated = False
        """Whether a request was retried, so that the server may have executed it twice."""
        self.so_far = ""
        """Progress so far, appended to the error when giving up."""
        self._end = time.monotonic() + total_s
        self._is_over = threading.Event()

    def until_done(self, action: Callable[[], T]) -> T:
        """Result of `action`, which is retried after transient errors.

        Raises:
            GivenUpError: another thread gave up, or the total time is up.
            MlflowException, SQLAlchemyError, OSError: the last error of `action`.
        """
        end, wait_s = time.monotonic() + self.request_s, FIRST_WAIT_S
        while True:
            self._check()
            try:
                return action()
            except Exception as error:
                is_late = time.monotonic() + wait_s > min(end, self._end)
                if is_late or self._is_over.is_set() or not is_transient(error):
                    self._is_over.set()
                    _raise_known(error)
            self.has_repeated = True
            self._is_over.wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def give_up(self) -> None:
        """Stop the retries of all threads; further requests raise GivenUpError."""
        self._is_over.set()

    def _check(self) -> None:
        if time.monotonic() > self._end:
            self._is_over.set()
            raise GivenUpError(f"it is not done after {self.total_s:.0f} s")
        if self._is_over.is_set():
            raise GivenUpError("another request failed")


class PatientClient:
    """An MlflowClient whose idempotent methods are retried.

    Methods that create objects are not: callers wrap them in `Patience.until_done`, together with a
    look-up of the object.
    """

    def __init__(self, client: MlflowClient, patience: Patience) -> None:
        self._client = client
        self.patience = patience

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name.startswith(NOT_IDEMPOTENT) or not callable(method):
            return method
        return lambda *given, **named: self.patience.until_done(partial(method, *given, **named))


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    causes = list(_causes(error))
    if any(map(_is_permanent, causes)):
        return False
    statuses = [status for cause in causes if (status := _status(cause)) is not None]
    if statuses:  # the innermost error is closest to the server
        return statuses[-1] in TRANSIENT
    return any(
        isinstance(cause, ConnectionError | TimeoutError | RequestException) for cause in causes
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    visited: list[BaseException] = []
    while error is not None and error not in visited:
        yield error
        visited.append(error)
        error = error.__cause__ or error.__context__


def _is_permanent(error: BaseException) -> bool:
    if isinstance(error, InvalidUrlException | InvalidURL | SSLError | ImportError):
        return True
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_NONAME
    return isinstance(error, DBAPIError) and PERMANENT.search(str(error)) is not None


def _status(error: BaseException) -> int | None:
    """The HTTP status equivalent to an error; 503 if a name is taken, which calls for a look-up."""
    if isinstance(error, MlflowException):
        taken = error.error_code == "RESOURCE_ALREADY_EXISTS"
        return 503 if taken else int(error.get_http_status_code())
    if isinstance(error, DBAPIError):
        return 503 if error.connection_invalidated or "Operational" in type(error).__name__ else 400
    if isinstance(error, RequestException) and error.response is not None:
        return int(error.response.status_code)
    return _status_of_store(error)


def _status_of_store(error: BaseException) -> int | None:
    """The status of an error of the S3 client, recognized by its shape to avoid importing boto3."""
    answer = getattr(error, "response", None)
    if isinstance(answer, Mapping):
        return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
    is_connection = type(error).__name__ in (
        *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError"),
        *("ConnectionClosedError", "IncompleteReadError"),
    )
    return 503 if is_connection else None


def _raise_known(error: Exception) -> None:
    """Raise the error, or an OSError in place of an error type specific to an artifact store."""
    is_known = isinstance(error, MlflowException | SQLAlchemyError | OSError)
    if is_known or type(error).__module__.partition(".")[0] in OURS:
        raise error
    raise OSError(f"{type(error).__name__}: {error}") from error


@contextmanager
def single_requests(timeout_s: float) -> Iterator[None]:
    """Context manager in which MLflow sends each request once, with a timeout.

    MLflow reads both from the environment at each request and offers no other way. A timeout set by
    the user is kept.
    """
    forced = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "AWS_MAX_ATTEMPTS": "1",  # of the S3 client
        "MLFLOW_HTTP_REQUEST_TIMEOUT": os.environ.get(
            "MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, round(timeout_s)))
        ),
    }
    before = {name: os.environ.get(name) for name in forced}
    os.environ.update(forced)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
