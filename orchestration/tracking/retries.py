"""Asking MLflow again: what may get better, how long it is tried, and who stops.

MLflow tries a failed request again by itself, up to seven times and with waits that double: minutes
per request, and a request that makes a run is sent again although the server may have made it. So
each request is sent once (`single_requests`), and here it is decided what is asked again. What
makes something is asked again together with the look whether it is there by now.
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
"""Between a failure and the next try; each wait is twice the one before."""
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses of a server that may do better."""
SETTLED = re.compile(
    r"authentication failed|does not exist|pg_hba|permission denied|no password|unable to open"
    r"|readonly|read-only|malformed|not a database|disk is full|no such (table|column)"
)
"""In messages of databases: what stays as it is."""
OURS = ("builtins", "orchestration", "cluster")
"""Packages whose errors stay what they are."""
MAKING = ("create_", "log_outputs")
"""Methods of a client that make something anew at each call."""


class GivenUpError(OSError):
    """Another thread's request failed for good, or time is up."""


class Patience:
    """How long one recording tries; all its threads share one."""

    def __init__(self, request_s: float, total_s: float = float("inf")) -> None:
        """Time begins to run.

        Args:
            request_s: how long a request that fails is sent again.
            total_s: when nothing is sent any more.
        """
        self.request_s, self.total_s = request_s, total_s
        self.has_repeated = False
        """Whether something was asked again, which the server may have done twice."""
        self.so_far = ""
        """What is written already, for who gives up."""
        self._end = time.monotonic() + total_s
        self._is_over = threading.Event()

    def until_done(self, action: Callable[[], T]) -> T:
        """The result of `action`, which is called again while its errors may pass.

        Raises:
            GivenUpError: see there.
            MlflowException, SQLAlchemyError, OSError: the last error of `action`.
        """
        end, wait_s = time.monotonic() + self.request_s, FIRST_WAIT_S
        while True:
            self._check()
            try:
                return action()
            except Exception as error:
                is_late = time.monotonic() + wait_s > min(end, self._end)
                if is_late or self._is_over.is_set() or not may_pass(error):
                    self._is_over.set()
                    _raise_known(error)
            self.has_repeated = True
            self._is_over.wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def give_up(self) -> None:
        """No thread sends anything any more."""
        self._is_over.set()

    def _check(self) -> None:
        if time.monotonic() > self._end:
            self._is_over.set()
            raise GivenUpError(f"it is not done after {self.total_s:.0f} s")
        if self._is_over.is_set():
            raise GivenUpError("another request failed")


class PatientClient:
    """An MlflowClient whose methods are called until they succeed, except those that make something
    anew: these go through `Patience.until_done` with a look whether it is there."""

    def __init__(self, client: MlflowClient, patience: Patience) -> None:
        self._client = client
        self.patience = patience

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name.startswith(MAKING) or not callable(method):
            return method
        return lambda *given, **named: self.patience.until_done(partial(method, *given, **named))


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    causes = list(_causes(error))
    if any(map(_is_settled, causes)):
        return False
    statuses = [status for one in causes if (status := _status(one)) is not None]
    if statuses:  # the one that is nearest to the server says most
        return statuses[-1] in PASSING
    return any(isinstance(one, ConnectionError | TimeoutError | RequestException) for one in causes)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def _is_settled(error: BaseException) -> bool:
    if isinstance(error, InvalidUrlException | InvalidURL | SSLError | ImportError):
        return True
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_NONAME
    return isinstance(error, DBAPIError) and SETTLED.search(str(error)) is not None


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error stands for; of a name that is taken, 503: look again."""
    if isinstance(error, MlflowException):
        taken = error.error_code == "RESOURCE_ALREADY_EXISTS"
        return 503 if taken else int(error.get_http_status_code())
    if isinstance(error, DBAPIError):
        return 503 if error.connection_invalidated or "Operational" in type(error).__name__ else 400
    if isinstance(error, RequestException) and error.response is not None:
        return int(error.response.status_code)
    return _status_of_store(error)


def _status_of_store(error: BaseException) -> int | None:
    """Of an error of S3's client, which is told by its looks: only storage imports that."""
    answer = getattr(error, "response", None)
    if isinstance(answer, Mapping):
        return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
    is_connection = type(error).__name__ in (
        *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError"),
        *("ConnectionClosedError", "IncompleteReadError"),
    )
    return 503 if is_connection else None


def _raise_known(error: Exception) -> None:
    """Raise the error, or an OSError in place of one that is known to an artifact store alone."""
    is_known = isinstance(error, MlflowException | SQLAlchemyError | OSError)
    if is_known or type(error).__module__.partition(".")[0] in OURS:
        raise error
    raise OSError(f"{type(error).__name__}: {error}") from error


@contextmanager
def single_requests(timeout_s: float) -> Iterator[None]:
    """MLflow sends each request once and waits so long for the answer, as long as the block.

    It reads this from the environment at each request, and has no other way to be told. A timeout
    that is there already stays.
    """
    forced = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "AWS_MAX_ATTEMPTS": "1",  # of S3's client
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
