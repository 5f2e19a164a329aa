"""An S3 server for tests, in a thread of this process, and faults of its responses."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from werkzeug.serving import BaseWSGIServer, make_server

from cluster import s3_store
from tests.support.faulty_proxy import Proxy

BUCKET = "bucket"
LOGIN = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class OneChangeAtATime:
    """WSGI application that serializes conditional requests, as S3 does.

    moto checks the condition and then writes, so two concurrent threads may both find it met
    (one of 60 races of eight threads, with a thread switch every 10 us).
    """

    def __init__(self, application: Any) -> None:
        self._application, self._lock = application, threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        has_condition = {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} & environ.keys()
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") or not has_condition:
            return self._application(environ, start_response)
        with self._lock:
            return self._application(environ, start_response)


class S3:
    """A server with one bucket, which keeps its content while it is stopped."""

    def __init__(self) -> None:
        moto = pytest.importorskip("moto.server", reason="moto is missing: requirements-dev.txt")
        self._application = OneChangeAtATime(
            moto.DomainDispatcherApplication(moto.create_backend_app)
        )
        self.port = 0
        self.start()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        empty = urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        urllib.request.urlopen(
            empty, timeout=10
        ).close()  # removes data of earlier servers in this process
        self.client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=LOGIN["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=LOGIN["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket=BUCKET)

    def start(self) -> None:
        """Listen, on the same port as before."""
        handler = pytest.importorskip("moto.server").MotoRequestHandler
        args = ("127.0.0.1", self.port, self._application, True)
        self._server: BaseWSGIServer = make_server(*args, request_handler=handler)
        self.port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Environment for programs that use the server."""
        return {**LOGIN, "AWS_ENDPOINT_URL": endpoint or self.endpoint}


@contextmanager
def s3_server() -> Iterator[S3]:
    """Run a server while the block runs."""
    server = S3()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def reached(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Iterator[None]:
    """Make this process use the server that the environment names."""
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        s3_store.client.cache_clear()
        yield
    s3_store.client.cache_clear()


@contextmanager
def before(server: S3, host: str = "127.0.0.1") -> Iterator[Proxy]:
    """A proxy in front of the server, at an address of this machine, for injecting faults."""
    proxy = Proxy(server.port, host)
    try:
        yield proxy
    finally:
        proxy.refuse()
