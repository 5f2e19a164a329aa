"""A server of S3 for tests, in a thread of this process, and what can befall its answers."""

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
    """A WSGI application that answers changes with a condition one by one, as S3 does.

    moto looks at the condition and then writes: of two threads at once both may have found it met
    (one of 60 races of eight, with a switch of threads every 10 us).
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
    """A server with one bucket, which keeps what it has while it is down."""

    def __init__(self) -> None:
        moto = pytest.importorskip("moto.server", reason="moto is missing: requirements-dev.txt")
        self._application = OneChangeAtATime(
            moto.DomainDispatcherApplication(moto.create_backend_app)
        )
        self.port = 0
        self.start()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        empty = urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        urllib.request.urlopen(empty, timeout=10).close()  # of servers before it in this process
        self.client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=LOGIN["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=LOGIN["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket=BUCKET)

    def start(self) -> None:
        """Listen, at the same port as before."""
        handler = pytest.importorskip("moto.server").MotoRequestHandler
        words = ("127.0.0.1", self.port, self._application, True)
        self._server: BaseWSGIServer = make_server(*words, request_handler=handler)
        self.port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nobody answers at its port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What programs need to reach it."""
        return {**LOGIN, "AWS_ENDPOINT_URL": endpoint or self.endpoint}


@contextmanager
def s3_server() -> Iterator[S3]:
    """One that runs as long as the block."""
    server = S3()
    try:
        yield server
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
def before(server: S3, host: str = "127.0.0.1") -> Iterator[Proxy]:
    """A proxy in front of it, at an address of this machine, which can let it fail."""
    proxy = Proxy(server.port, host)
    try:
        yield proxy
    finally:
        proxy.refuse()
