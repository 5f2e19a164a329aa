"""A proxy that delays, fails and truncates the responses of a server."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["before", "after", "cut", "late"] | int | None
""""before": status 503, and the request is not forwarded; "after": it is forwarded, and the
response is status 500; "cut": it is forwarded, and the connection ends within the response;
"late": it is forwarded when the client no longer waits; a number: this status at once.
"""

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "expect"}


class Proxy:
    """Forwards requests to a server on this host; its behaviour can be changed."""

    def __init__(self, server_port: int, host: str = "127.0.0.1") -> None:
        self.server_port, self.host = server_port, host
        self.delay_s = 0.0
        """Delay before each response."""
        self.late_s = 4.0
        self.fault: Callable[[int], Fault] = lambda _number: None
        """Fault of the n-th request."""
        self.count = 0
        self.asked: Counter[str] = Counter()
        """Number of requests, by method and the end of their path."""
        self.last = ""
        """Method and path of the request that `fault` is called for."""
        self._lock = threading.Lock()
        self._listen(0)
        self.port = int(self._listener.server_address[1])

    @property
    def uri(self) -> str:
        return f"http://{self.host}:{self.port}"

    def refuse(self) -> None:
        """Stop listening."""
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    def heal(self) -> None:
        """Forward everything without delay."""
        self.delay_s, self.fault = 0.0, lambda _number: None
        if not self._thread.is_alive():
            self._listen(self.port)

    def next_fault(self, kind: str) -> Fault:
        """Count a request and return its fault."""
        with self._lock:
            self.count += 1
            self.asked[kind] += 1
            self.last = kind
            return self.fault(self.count)

    def _listen(self, port: int) -> None:
        self._listener = _Listener((self.host, port), self)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=[0.05])
        self._thread.daemon = True
        self._thread.start()


def half(seed: int, *faults: Fault) -> Callable[[int], Fault]:
    """A random one of `faults` for half of the requests, determined by seed and request number."""

    def fault(number: int) -> Fault:
        rng = random.Random(f"{seed} {number}")
        return rng.choice(faults) if rng.random() < 0.5 else None

    return fault


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], proxy: Proxy) -> None:
        super().__init__(address, _Handler)
        self.proxy = proxy
        self.is_open = True

    def shutdown(self) -> None:
        self.is_open = False
        super().shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def do_any(self) -> None:
        proxy = self.server.proxy
        body = self._body()
        if not self.server.is_open:  # a kept-alive connection from before
            self.close_connection = True
            return
        fault = proxy.next_fault(f"{self.command} {_kind(self.path)}")
        time.sleep(proxy.delay_s)
        if fault == "before" or isinstance(fault, int):
            self._answer(fault if isinstance(fault, int) else 503, b"proxy: not now")
            return
        time.sleep(proxy.late_s if fault == "late" else 0.0)
        status, headers, content = self._pass_on(body)
        if fault == "after":
            self._answer(500, b"proxy: something went wrong")
        elif fault == "cut":
            self._cut(status, content)
        else:
            self._answer(status, content, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        server = http.client.HTTPConnection("127.0.0.1", self.server.proxy.server_port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        try:
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            server.close()

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            if name.lower() not in HOP:
                self.send_header(name, value)
        of_head = (headers or {}).get("Content-Length", "0") if self.command == "HEAD" else None
        self.send_header("Content-Length", of_head or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _cut(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) + 10))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _kind(path: str) -> str:
    """Kind of a request: "runs/create" for `/api/2.0/mlflow/runs/create?x`, or "artifact"."""
    path = path.partition("?")[0]
    if "/mlflow-artifacts/" in path:
        return "artifact"
    words = path.rpartition("/mlflow/")[2].split("/")
    return "/".join("ID" if word.startswith("m-") else word for word in words)
