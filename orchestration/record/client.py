"""Reaching MLflow: its address, its experiments, its errors."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError


class RecordError(Exception):
    """MLflow did not take, or does not have, what was asked for. Storage has it all the same."""


def ui_address(tracking_uri: str) -> str:
    """Where the UI of a tracking server is; for a SQLite file, where `make ui` opens it."""
    if not tracking_uri.startswith(("http://", "https://")):
        return "http://127.0.0.1:5000"
    return _without_password(tracking_uri).rstrip("/")


def experiment_id(client: MlflowClient, tracking_uri: str, name: str) -> str:
    prefix = "sqlite:///"
    place = None
    if tracking_uri.startswith(prefix):
        # MLflow would put them below the working directory, which a submitted job loses.
        folder = Path(tracking_uri.removeprefix(prefix)).absolute().parent
        place = str(folder / "mlflow-artifacts")
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=place))
    if found.lifecycle_stage != "active":
        raise RecordError(
            f"experiment '{name}' was deleted in MLflow; restore it with "
            f"`mlflow experiments restore -x {found.experiment_id}` or name another"
        )
    return str(found.experiment_id)


@contextmanager
def record_errors(tracking_uri: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # MLflow's own use of SQLAlchemy, which the reader can do nothing about.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RecordError(_without_password(f"MLflow at {tracking_uri}: {reason}")) from error


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)
