"""The server of `cluster/mlflow`, really running on PostgreSQL and S3, with logins."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import moto.server
import pytest

from cluster.head import free_port
from tests.support.deployment_files import (
    CLUSTER,
    DOCKERFILES,
    compose,
    instructions,
    required_variables,
)
from tests.support.mlflow_server import _end, _wait_for
from tests.support.postgres import PASSWORD, USER, postgres, programs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL (initdb) is not installed here"),
]
ADMIN = "hunter2-of-the-admin"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"
OWN = "MLFLOW_", "AWS_", "PG"


def environment(folder: Path, database: str, port: int) -> dict[str, str]:
    """Environment that compose gives the server, with the addresses of this test."""
    given = dict.fromkeys(required_variables(), "testing") | {
        "POSTGRES_PASSWORD": PASSWORD,
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket/mlflow",
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"localhost:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    settings = compose(given)["services"]["mlflow"]["environment"]
    made = {name: value for name, value in settings.items() if value is not None}
    address = made["MLFLOW_BACKEND_STORE_URI"].replace("mlflow@postgres:5432", database)
    config = folder / "auth.ini"
    text = (CLUSTER / "mlflow" / "auth.ini").read_text()
    config.write_text(text.replace("mlflow@postgres:5432", database))
    fixed = [words for name, words in instructions(DOCKERFILES[1]) if name == "ENV"]
    image = dict(word.split("=", 1) for words in fixed for word in words.split())
    here = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    own = {"MLFLOW_BACKEND_STORE_URI": address, "MLFLOW_AUTH_CONFIG_PATH": str(config)}
    return here | image | made | own


def command(port: int) -> list[str]:
    """The command of the image, on this host only."""
    (words,) = (json.loads(words) for name, words in instructions(DOCKERFILES[1]) if name == "CMD")
    put = {
        "mlflow": [sys.executable, "-m", "mlflow"],
        "0.0.0.0": ["127.0.0.1"],
        "5000": [str(port)],
    }
    return [made for word in words for made in put.get(word, [word])]


@contextmanager
def bucket() -> Iterator[str]:
    """Address of an S3 server with a bucket."""
    server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        s3 = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
        s3.create_bucket(Bucket="bucket")
        yield address
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the server, which runs for all tests of this file."""
    folder, port = tmp_path_factory.mktemp("shared"), free_port()
    log = folder / "server.log"
    with postgres() as database, bucket() as s3, open(log, "wb") as stream:
        where = environment(folder, f"{USER}@127.0.0.1:{database}", port)
        process = subprocess.Popen(
            command(port),
            cwd=folder,
            env=where | {"AWS_ENDPOINT_URL": s3},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_for(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://localhost:{port}"
        finally:
            _end(process)
    assert ADMIN not in log.read_text()
    assert PASSWORD not in log.read_text()


def status(address: str, login: str = "", body: bytes | None = None, **headers: str) -> int:
    """HTTP status of a response of the server."""
    request = urllib.request.Request(address, data=body, headers=headers)
    if login:
        words = base64.b64encode(login.encode()).decode()
        request.add_header("Authorization", f"Basic {words}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_without_a_login_nothing_is_told(server: str) -> None:
    assert status(server + SEARCH) == 401
    assert status(server + SEARCH, login="admin:wrong") == 401
    assert status(f"{server}/") == 401


def test_with_a_login_it_answers(server: str) -> None:
    assert status(server + SEARCH, login=f"admin:{ADMIN}") == 200


def test_another_host_name_is_refused_even_with_a_login(server: str) -> None:
    assert status(server + SEARCH, login=f"admin:{ADMIN}", Host="evil.example.com") == 403
    assert status(server + SEARCH, login=f"admin:{ADMIN}", Host="localhost") == 403


def test_a_page_of_another_place_cannot_write(server: str) -> None:
    address, body = f"{server}/api/2.0/mlflow/experiments/create", b'{"name": "theirs"}'
    words = {"login": f"admin:{ADMIN}", "body": body, "Content-Type": "application/json"}
    assert status(address, Origin="https://evil.example.com", **words) == 403
    assert status(address, Origin="http://localhost:5000", **words) == 200


def test_a_probe_needs_no_login(server: str) -> None:
    assert status(f"{server}/health", Host="10.0.0.7:5000") == 200


def test_a_job_records_through_it_into_the_bucket(server: str, monkeypatch, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN)
    client = MlflowClient(server)
    run = client.create_run(client.create_experiment("ours"))
    client.log_text(run.info.run_id, "hello", "note.txt")
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    fetched = client.download_artifacts(run.info.run_id, "note.txt", str(tmp_path))
    assert Path(fetched).read_text() == "hello"


@pytest.mark.parametrize("name", ["MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"])
def test_it_does_not_start_without_a_secret(name: str, tmp_path: Path) -> None:
    port = free_port()
    where = environment(tmp_path, "nobody@127.0.0.1:1", port)
    sqlite = f"sqlite:///{tmp_path}/mlflow.db"
    where["MLFLOW_BACKEND_STORE_URI"] = sqlite
    config = tmp_path / "auth.ini"
    text = config.read_text().replace("postgresql+psycopg://nobody@127.0.0.1:1/mlflow", sqlite)
    config.write_text(text)
    where.pop(name)
    done = subprocess.run(
        command(port), cwd=tmp_path, env=where, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert name in done.stderr
