"""Artifacts in S3, with a server inside the test process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cluster.head import free_port
from orchestration.config.storage_layout import PROGRAM_FILE
from orchestration.tracking import RecordError, fetch_model
from tests.support.mlflow_server import mlflow_server
from tests.support.recording import Place
from tests.support.s3 import LOGIN, s3_server

pytestmark = [
    pytest.mark.slow,
    # Raised by MLflow 3.17 with SQLAlchemy 2.1; recording hides it from its callers.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the S3 server, which has a bucket named `bucket`."""
    with s3_server() as server:
        for name, value in LOGIN.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", server.endpoint)
        yield server.client


class S3Place(Place):
    """A job whose experiment has its artifacts in S3."""

    def __init__(self, folder: Path, like: Place, s3: Any) -> None:
        super().__init__(folder, like.root / "mlflow.db", like.model)
        self.s3 = s3

    def files(self, place: str) -> list[str]:
        bucket, _, folder = place.removeprefix("s3://").partition("/")
        result = self.s3.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/").get("Contents", [])
        return sorted(item["Key"].removeprefix(f"{folder}/") for item in result)


def test_files_of_an_experiment_in_s3_are_put_there(
    undisturbed: Place, s3: Any, tmp_path: Path
) -> None:
    place = S3Place(tmp_path / "there", undisturbed, s3)
    place.client.create_experiment("digits", "s3://bucket/mlflow")
    models = place.record().models
    assert place.state() == undisturbed.recorded()
    fetched = fetch_model(models[0], place.uri, tmp_path / "fetched")
    assert (fetched / PROGRAM_FILE).read_bytes() == (place.model / PROGRAM_FILE).read_bytes()


def test_a_server_leaves_the_files_to_s3(undisturbed: Place, s3: Any, tmp_path: Path) -> None:
    place = S3Place(tmp_path / "there", undisturbed, s3)
    place.client = MlflowClient(f"sqlite:///{tmp_path}/server.db")
    options = ["--default-artifact-root", "s3://bucket/root", "--no-serve-artifacts"]
    with mlflow_server(tmp_path, options=options) as port:
        place.record(f"http://127.0.0.1:{port}")
    assert place.state() == undisturbed.recorded()


def test_a_bucket_that_is_not_there_is_named_and_not_tried_again(place: Place, s3: Any) -> None:
    place.client.create_experiment("digits", "s3://nowhere/mlflow")
    began = time.monotonic()
    with pytest.raises(RecordError, match="NoSuchBucket"):
        place.record()
    assert time.monotonic() - began < 10


def test_an_s3_that_is_down_is_given_up(
    place: Place, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    place.client.create_experiment("digits", "s3://bucket/mlflow")
    began = time.monotonic()
    with pytest.raises(RecordError, match="EndpointConnectionError"):
        place.record(patience_s=4)
    assert time.monotonic() - began < 10
