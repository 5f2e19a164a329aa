"""A tracking server's bad days: a proxy in front of it that delays, fails and cuts its answers."""

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
"""`before`: 503, and the server never hears of it; `after`: the server does it, and the answer is
500; `cut`: the server does it, and the connection ends in the middle of the answer; `late`: the
server hears of it when nobody waits for the answer any more; a number: this status at once."""

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "expect"}


class Proxy:
    """Passes requests on to a server on this host; what it does with each can be changed."""

    def __init__(self, server_port: int, host: str = "127.0.0.1") -> None:
        self.server_port, self.host = server_port, host
        self.delay_s = 0.0
        """Before each answer."""
        self.late_s = 4.0
        self.fault: Callable[[int], Fault] = lambda _number: None
        """What befalls the n-th request."""
        self.count = 0
        self.asked: Counter[str] = Counter()
        """Requests by method and the end of their path."""
        self.last = ""
        """Of these the one that `fault` is asked about."""
        self._lock = threading.Lock()
        self._listen(0)
        self.port = int(self._listener.server_address[1])

    @property
    def uri(self) -> str:
        return f"http://{self.host}:{self.port}"

    def refuse(self) -> None:
        """Listen no longer."""
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    def heal(self) -> None:
        """Pass everything on at once."""
        self.delay_s, self.fault = 0.0, lambda _number: None
        if not self._thread.is_alive():
            self._listen(self.port)

    def next_fault(self, kind: str) -> Fault:
        """Counts the request."""
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
    """One of `faults` for half the requests, drawn from the seed and the request's number."""

    def fault(number: int) -> Fault:
        rng = random.Random(f"{seed} {number}")
        return rng.choice(faults) if rng.random() < 0.5 else None

    return fault


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, place: tuple[str, int], proxy: Proxy) -> None:
        super().__init__(place, _Handler)
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
        if not self.server.is_open:  # a connection that was kept from better days
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
    """`/api/2.0/mlflow/runs/create?x` is `runs/create`; an artifact is `artifact`."""
    path = path.partition("?")[0]
    if "/mlflow-artifacts/" in path:
        return "artifact"
    words = path.rpartition("/mlflow/")[2].split("/")
    return "/".join("ID" if word.startswith("m-") else word for word in words)
