"""A server of S3 for tests, in a thread of this process, and what can befall its answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from cluster import s3_store
from tests.orchestration.record.proxy import Proxy

BUCKET = "bucket"
LOGIN = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass
class S3:
    """A server with one bucket."""

    endpoint: str
    port: int
    client: Any

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What programs need to reach it."""
        return {**LOGIN, "AWS_ENDPOINT_URL": endpoint or self.endpoint}


@contextmanager
def s3_server(port: int = 0) -> Iterator[S3]:
    """One that runs as long as the block; empty, as all that start anew."""
    moto = pytest.importorskip("moto.server", reason="moto is missing; see requirements-dev.txt")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=LOGIN["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=LOGIN["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    try:
        yield S3(endpoint, port, client)
    finally:
        server.stop()


@contextmanager
def reached(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Iterator[None]:
    """This process asks the server that the environment names."""
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        s3_store.client.cache_clear()
        yield
    s3_store.client.cache_clear()


@contextmanager
def before(server: S3) -> Iterator[Proxy]:
    """A proxy in front of it, which can let it fail."""
    proxy = Proxy(server.port)
    try:
        yield proxy
    finally:
        proxy.refuse()
