"""Recording in PostgreSQL, directly and through a tracking server."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cluster.head import free_port
from orchestration.tracking import RecordError
from tests.support.mlflow_server import mlflow_server
from tests.support.postgres import PASSWORD, USER, postgres, programs
from tests.support.recording import Place

pytestmark = [
    # Raised by MLflow 3.17 with SQLAlchemy 2.1; recording hides it from its callers.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.skipif(programs() is None, reason="PostgreSQL (initdb) is not installed here"),
    pytest.mark.skipif(
        importlib.util.find_spec("psycopg") is None,
        reason="psycopg is not installed here; it is in the extra 'postgres'",
    ),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with postgres() as one:
        yield one


def address(port: int, password: str = PASSWORD) -> str:
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/mlflow"


class PostgresPlace(Place):
    """A job to be recorded in PostgreSQL, with artifacts in a folder."""

    def __init__(self, folder: Path, like: Place, uri: str, experiment: str) -> None:
        super().__init__(folder, like.root / "mlflow.db", like.model, experiment)
        self.uri, self.client = uri, MlflowClient(uri)


def test_postgres_gets_what_sqlite_gets(undisturbed: Place, port: int, tmp_path: Path) -> None:
    place = PostgresPlace(tmp_path / "there", undisturbed, address(port), "opened")
    place.record()
    assert place.state() == undisturbed.recorded()
    place.record()
    assert place.state() == undisturbed.state()
    location = place.client.get_experiment_by_name(place.experiment).artifact_location
    assert location == f"{tmp_path}/there/mlflow-artifacts"


def test_a_server_on_postgres_gets_what_sqlite_gets(
    undisturbed: Place, port: int, tmp_path: Path
) -> None:
    uri = address(port)
    place = PostgresPlace(tmp_path / "there", undisturbed, uri, "behind a server")
    with mlflow_server(tmp_path, uri) as server:
        place.record(f"http://127.0.0.1:{server}")

    def files(location: str) -> Any:
        return Place.files(place, location.replace("mlflow-artifacts:", f"{tmp_path}/artifacts"))

    place.files = files  # type: ignore[method-assign]
    assert place.state() == undisturbed.recorded()


def test_a_wrong_password_is_not_tried_again_and_not_told(undisturbed: Place, port: int) -> None:
    began = time.monotonic()
    with pytest.raises(RecordError, match=r"authentication failed.* MLFLOW_TRACKING_URI") as told:
        undisturbed.record(address(port, password="wrong-one"))
    assert time.monotonic() - began < 5
    assert "wrong-one" not in str(told.value)


def test_a_postgres_that_is_down_is_given_up(undisturbed: Place) -> None:
    began = time.monotonic()
    with pytest.raises(RecordError, match="refused"):
        undisturbed.record(address(free_port()), patience_s=4)
    assert time.monotonic() - began < 4
