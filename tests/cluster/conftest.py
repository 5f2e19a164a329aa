"""A fake dashboard that answers like Ray's, from a thread of the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class FakeDashboard(ThreadingHTTPServer):
    """Serves `answers` by path; sends another status if `token` does not match."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, object] = {"/api/version": {"ray_version": "2.60.0"}}
        self.token: str | None = None
        self.asked: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeDashboard

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        sent = self.headers.get("Authorization")
        if self.server.token and sent != f"Bearer {self.server.token}":
            self._answer(403 if sent else 401, "Forbidden")
        elif self.path not in self.server.answers:
            self._answer(404, "no such thing")
        else:
            answer = self.server.answers[self.path]
            self._answer(200, answer if isinstance(answer, str) else json.dumps(answer))

    do_POST = do_GET  # noqa: N815  # the name that the base class looks for

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def dashboard() -> Iterator[FakeDashboard]:
    with FakeDashboard() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def own_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Isolate the environment from the user's token and head; return the path of the token."""
    for name in ("RAY_AUTH_TOKEN", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "ray" / "token"))
    return tmp_path / "ray" / "token"
