"""Retries: which requests are repeated, and for how long."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import OperationalError

from orchestration.tracking.parallel import in_order
from orchestration.tracking.retries import (
    GivenUpError,
    Patience,
    PatientClient,
    is_transient,
    single_requests,
)


class Failing:
    """Fails a number of times, then succeeds; counts its calls."""

    def __init__(self, times: float, error: Exception | None = None) -> None:
        self.times, self.error, self.count = times, error or ConnectionError("down"), 0

    def __call__(self) -> str:
        self.count += 1
        if self.count <= self.times:
            raise self.error
        return "answer"


def answered(status: int) -> requests.HTTPError:
    answer = requests.Response()
    answer.status_code = status
    return requests.HTTPError(response=answer)


def of_database(text: str) -> OperationalError:
    return OperationalError("insert", {}, sqlite3.OperationalError(text))


def raised(error: Exception, cause: Exception) -> Exception:
    """An error as MLflow wraps those of its libraries."""
    error.__context__ = cause
    return error


class OfStoreError(Exception):
    """An error as raised by the S3 client."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


WRAPPED = "API request failed with exception"
PASSING = [
    ConnectionError("refused"),
    TimeoutError(),
    requests.ConnectionError(),
    requests.Timeout(),
    *map(answered, (408, 429, 500, 502, 503, 504)),
    MlflowException(WRAPPED),
    RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": ""}),
    RestException({"error_code": "RESOURCE_ALREADY_EXISTS", "message": ""}),
    of_database("database is locked"),
    raised(MlflowException.invalid_parameter_value("no model"), MlflowException(WRAPPED)),
    OfStoreError(503),
]
SETTLED = [
    *map(answered, (400, 401, 403, 404)),
    RestException({"error_code": "PERMISSION_DENIED", "message": ""}),
    RestException({"error_code": "UNAUTHENTICATED", "message": ""}),
    MlflowException.invalid_parameter_value("no such scheme"),
    raised(MlflowException(WRAPPED), socket.gaierror(socket.EAI_NONAME, "no such host")),
    raised(MlflowException(WRAPPED), requests.exceptions.SSLError()),
    of_database("unable to open database file"),
    of_database("attempt to write a readonly database"),
    of_database('password authentication failed for user "me"'),
    OfStoreError(403),
    ModuleNotFoundError("No module named 'psycopg'"),
    PermissionError("not yours"),
    KeyError("a mistake"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_get_better_is_asked_again(error: Exception) -> None:
    ask = Failing(2, error)
    assert is_transient(error)
    assert Patience(10).until_done(ask) == "answer"
    assert ask.count == 3


@pytest.mark.parametrize("error", SETTLED, ids=repr)
def test_what_cannot_get_better_is_asked_once(error: Exception) -> None:
    ask = Failing(2, error)
    expected = OSError if isinstance(error, OfStoreError) else type(error)
    with pytest.raises(expected):
        Patience(10).until_done(ask)
    assert ask.count == 1


def test_a_request_that_always_fails_is_given_up_in_time() -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="down"):
        Patience(request_s=0.5).until_done(Failing(float("inf")))
    assert 0.2 < time.monotonic() - began < 2


def test_waits_become_longer() -> None:
    ask = Failing(float("inf"))
    with pytest.raises(ConnectionError):
        Patience(request_s=1.6).until_done(ask)
    assert ask.count in (4, 5)  # at 0, 0.1, 0.3, 0.7 and, on an idle machine, 1.5 s


def test_nothing_is_asked_when_time_is_up() -> None:
    patience, ask = Patience(request_s=5, total_s=0.2), Failing(0)
    assert patience.until_done(ask) == "answer"
    time.sleep(0.21)
    with pytest.raises(GivenUpError, match=r"not done after 0 s"):
        patience.until_done(ask)
    assert ask.count == 1


def test_an_action_within_an_action_fails_with_its_own_error() -> None:
    patience = Patience(request_s=0.3)
    with pytest.raises(ConnectionError, match="down"):
        patience.until_done(lambda: patience.until_done(Failing(float("inf"))))


def test_a_client_repeats_all_but_what_makes_something() -> None:
    class Client:
        tracking_uri = "http://host"
        set_tag, create_run = Failing(2), Failing(2)

    client: Any = PatientClient(Client(), Patience(5))
    assert client.tracking_uri == "http://host"
    assert client.set_tag() == "answer"
    with pytest.raises(ConnectionError):
        client.create_run()


def test_mlflow_is_told_to_send_requests_once_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    before = dict(os.environ)
    with single_requests(timeout_s=20):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "20"
    assert dict(os.environ) == before


def test_a_timeout_that_somebody_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "300")
    with single_requests(timeout_s=20):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "300"


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order(threads: int) -> None:
    def work(n: int) -> int:
        time.sleep(0.01 * (5 - n))
        return n

    assert list(in_order(work, range(5), threads, Patience(1))) == list(range(5))


def test_threads_stop_when_one_fails_and_its_error_is_told() -> None:
    patience, done = Patience(5), threading.Event()

    def work(n: int) -> None:
        if n == 2:
            done.wait(5)
            patience.until_done(Failing(1, answered(403)))
        done.set()
        patience.until_done(Failing(float("inf")))

    began = time.monotonic()
    with pytest.raises(requests.HTTPError):
        list(in_order(work, range(8), 3, patience))
    assert time.monotonic() - began < 4
