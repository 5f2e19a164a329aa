"""Connection to MLflow: address, experiments, errors."""

from __future__ import annotations

import fcntl
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from orchestration.config.credentials import sayable, without_passwords
from orchestration.tracking.retries import Patience, PatientClient, single_requests

RETRY_S = 120.0
"""Default of how long a job waits for MLflow, seconds."""
REQUEST_PART, TIMEOUT_PART = 1 / 4, 1 / 6
"""Fractions of it: how long a failing request is retried, and the timeout of a response."""
CASE_S = 2.0
"""Additional time per case, seconds. A healthy MLflow needs less, however many cases there are."""
SQLITE = "sqlite:///"
DATABASE = re.compile(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:")
UNREACHED = re.compile(r"Max retries exceeded.*\[Errno -?\d+\] ([\w ,-]+)")
"""Error text of a server that cannot be reached; the rest of it names objects of the client."""
LOGIN_HINT = (
    "; it wants a login: MLFLOW_TRACKING_URI may have one, or MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD"
)


class RecordError(Exception):
    """MLflow failed to store or to find an object. Nothing is lost: storage has it too."""


def is_server(tracking_uri: str) -> bool:
    """Whether MLflow is reached through a server, and not by opening its database."""
    return tracking_uri.startswith(("http://", "https://"))


def ui_address(tracking_uri: str) -> str:
    """Address of the UI of a tracking server; for a database, the address that `make ui` serves."""
    if not is_server(tracking_uri):
        return "http://127.0.0.1:5000"
    return without_passwords(tracking_uri).rstrip("/")


def experiment_id(
    client: PatientClient, tracking_uri: str, name: str, folder: str | None = None
) -> str:
    """Id of an experiment, which is created if missing.

    Args:
        client: of this tracking URI.
        tracking_uri: a server chooses the artifact location itself; for a SQLite file, artifacts
            are stored next to it.
        name: of the experiment.
        folder: parent of the artifacts for other databases; None means the working directory.

    Raises:
        RecordError: the experiment was deleted.
    """

    def find_or_create() -> str:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            return str(client.create_experiment(name, _artifacts(tracking_uri, folder)))
        if experiment.lifecycle_stage != "active":
            raise RecordError(
                f"experiment '{name}' was deleted in MLflow; restore it with "
                f"`mlflow experiments restore -x {experiment.experiment_id}` or name another"
            )
        return str(experiment.experiment_id)

    return client.patience.until_done(find_or_create)


def _artifacts(tracking_uri: str, folder: str | None) -> str | None:
    # MLflow's default is the working directory, which does not outlive a submitted job.
    if tracking_uri.startswith(SQLITE):
        folder = str(Path(tracking_uri.removeprefix(SQLITE)).absolute().parent)
    is_ours = folder is not None and DATABASE.match(tracking_uri) is not None
    return f"{folder}/mlflow-artifacts" if is_ours else None


@contextmanager
def connected(
    tracking_uri: str, patience_s: float = RETRY_S, total_s: float = float("inf")
) -> Iterator[PatientClient]:
    """Context manager with a client; errors of MLflow inside the block become RecordErrors.

    Args:
        tracking_uri: of a server or a database.
        patience_s: a failing request is retried for a quarter of it.
        total_s: no request is sent after this time.
    """
    patience = Patience(patience_s * REQUEST_PART, total_s)
    timeout_s = patience_s * TIMEOUT_PART
    with record_errors(tracking_uri, patience), single_requests(timeout_s):
        if DATABASE.match(tracking_uri):
            patience.until_done(lambda: _reach_database(tracking_uri, timeout_s))
        with _alone(tracking_uri):
            client = MlflowClient(tracking_uri)
        yield PatientClient(client, patience)


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Exclusive lock on a SQLite file, which breaks if two processes create its tables at once."""
    path = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or not os.access(path.parent, os.W_OK):  # read-only
        yield
        return
    with open(path.with_name(f".{path.name}.lock"), "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _reach_database(uri: str, timeout_s: float) -> None:
    """Connect once. MLflow would try ten times within 100 s and print each failure to stderr."""
    if uri.startswith(SQLITE):
        Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    is_postgres = uri.startswith("postgresql")
    limits = {"connect_timeout": max(2, round(timeout_s))} if is_postgres else {}
    engine = sqlalchemy.create_engine(uri, connect_args=limits)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


@contextmanager
def record_errors(tracking_uri: str, patience: Patience) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # Raised by MLflow's own use of SQLAlchemy; users can do nothing about it.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        # Not `from error`: the traceback would show the address with its password.
        text = sayable(f"MLflow at {tracking_uri}: {_reason(error)}")
        raise RecordError(text + _hint(error) + patience.so_far) from None


def _reason(error: Exception) -> str:
    """Text of an error on one line; reduced to its cause if the server cannot be reached."""
    text = " ".join(str(error).split())
    refused = UNREACHED.search(text)
    return text if refused is None else f"cannot be reached: {refused[1]}"


def _hint(error: Exception) -> str:
    """Hint at a remedy if the error itself has none."""
    if isinstance(error, ImportError):
        return "; install it in the checkout, e.g. pip install '.[postgres]'"
    status = error.get_http_status_code() if isinstance(error, MlflowException) else None
    is_refused = status in (401, 403) or "authentication failed" in str(error)
    return LOGIN_HINT if is_refused else ""
