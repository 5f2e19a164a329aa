"""Reaching MLflow: its address, its experiments, its errors."""

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

PATIENCE_S = 120.0
"""What a job waits for MLflow unless it says otherwise."""
REQUEST_PART, TIMEOUT_PART = 1 / 4, 1 / 6
"""Of it: how long a failing request is sent again, and how long its answer is waited for."""
CASE_S = 2.0
"""A healthy MLflow takes less for a case, so that no number of cases makes a recording too long."""
SQLITE = "sqlite:///"
DATABASE = re.compile(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:")
UNREACHED = re.compile(r"Max retries exceeded.*\[Errno -?\d+\] ([\w ,-]+)")
"""Of a server that nobody answers for: the rest names objects of the HTTP client."""
LOGIN_HINT = (
    "; it wants a login: MLFLOW_TRACKING_URI may have one, or MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD"
)


class RecordError(Exception):
    """MLflow did not take, or does not have, what was asked for. Storage has it all the same."""


def is_server(tracking_uri: str) -> bool:
    """Whether MLflow is reached through a server, and not by opening its database."""
    return tracking_uri.startswith(("http://", "https://"))


def ui_address(tracking_uri: str) -> str:
    """Where the UI of a tracking server is; for a database, where `make ui` opens it."""
    if not is_server(tracking_uri):
        return "http://127.0.0.1:5000"
    return without_passwords(tracking_uri).rstrip("/")


def experiment_id(
    client: PatientClient, tracking_uri: str, name: str, folder: str | None = None
) -> str:
    """The experiment of a name, made if missing.

    Args:
        client: of this tracking URI.
        tracking_uri: a server decides itself where the files of an experiment go; those of a SQLite
            file lie beside it.
        name: of the experiment.
        folder: where they lie for other databases; else below the working directory.

    Raises:
        RecordError: it was deleted.
    """

    def found_or_new() -> str:
        found = client.get_experiment_by_name(name)
        if found is None:
            return str(client.create_experiment(name, _artifacts(tracking_uri, folder)))
        if found.lifecycle_stage != "active":
            raise RecordError(
                f"experiment '{name}' was deleted in MLflow; restore it with "
                f"`mlflow experiments restore -x {found.experiment_id}` or name another"
            )
        return str(found.experiment_id)

    return client.patience.until_done(found_or_new)


def _artifacts(tracking_uri: str, folder: str | None) -> str | None:
    # MLflow would put them below the working directory, which a submitted job loses.
    if tracking_uri.startswith(SQLITE):
        folder = str(Path(tracking_uri.removeprefix(SQLITE)).absolute().parent)
    is_ours = folder is not None and DATABASE.match(tracking_uri) is not None
    return f"{folder}/mlflow-artifacts" if is_ours else None


@contextmanager
def connected(
    tracking_uri: str, patience_s: float = PATIENCE_S, total_s: float = float("inf")
) -> Iterator[PatientClient]:
    """A client for the block, inside which every error of MLflow is a RecordError.

    Args:
        tracking_uri: a server, or a database.
        patience_s: a failing request is sent again for a quarter of it.
        total_s: after so long nothing is sent any more.
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
    """Wait while another process opens the same SQLite file: two that make its tables break it."""
    path = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or not os.access(path.parent, os.W_OK):  # only to be read
        yield
        return
    with open(path.with_name(f".{path.name}.lock"), "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _reach_database(uri: str, timeout_s: float) -> None:
    """Connect once: MLflow would try ten times, for a hundred seconds, and tell each on stderr."""
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
            # MLflow's own use of SQLAlchemy, which the reader can do nothing about.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        # Not `from error`: a traceback would show the address with its password.
        text = sayable(f"MLflow at {tracking_uri}: {_reason(error)}")
        raise RecordError(text + _hint(error) + patience.so_far) from None


def _reason(error: Exception) -> str:
    """On one line; where nobody answers, only why."""
    text = " ".join(str(error).split())
    refused = UNREACHED.search(text)
    return text if refused is None else f"cannot be reached: {refused[1]}"


def _hint(error: Exception) -> str:
    """The way out, where the error does not say it."""
    if isinstance(error, ImportError):
        return "; install it in the checkout, e.g. pip install '.[postgres]'"
    status = error.get_http_status_code() if isinstance(error, MlflowException) else None
    is_refused = status in (401, 403) or "authentication failed" in str(error)
    return LOGIN_HINT if is_refused else ""
