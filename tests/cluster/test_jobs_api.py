"""Client of Ray's jobs API: servers and tokens."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cluster import jobs_api
from cluster.head import free_port
from cluster.jobs_api import (
    ClusterError,
    JobsApi,
    NobodyAnswersError,
    ensure_token,
    running_head,
    token,
)


@pytest.fixture
def closed_address() -> str:
    return f"http://127.0.0.1:{free_port()}"


def test_a_token_is_made_for_this_user_alone(own_ray: Path) -> None:
    assert token() is None
    ensure_token()
    made = own_ray.read_text()
    assert len(made) == 64
    assert own_ray.stat().st_mode & 0o777 == 0o600
    assert token() == made


def test_a_token_that_is_there_is_kept(own_ray: Path) -> None:
    own_ray.parent.mkdir()
    own_ray.write_text("mine\n")
    ensure_token()
    assert own_ray.read_text() == "mine\n"
    assert token() == "mine"


def test_a_token_lies_where_ray_looks_for_it(
    own_ray: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    ensure_token()
    assert token() == (tmp_path / ".ray" / "auth_token").read_text()


def test_the_version_comes_with_the_right_token(dashboard, own_ray: Path) -> None:
    ensure_token()
    dashboard.token = token()
    assert JobsApi(dashboard.address).version() == "2.60.0"


@pytest.mark.parametrize(
    ("sent", "words"), [("wrong", "the token in RAY_AUTH_TOKEN"), ("", "requests without a token")]
)
def test_a_refused_token_is_named(
    dashboard, own_ray: Path, monkeypatch: pytest.MonkeyPatch, sent: str, words: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", sent)
    dashboard.token = "right"
    with pytest.raises(ClusterError, match=f"the Ray at {dashboard.address} refuses {words}"):
        JobsApi(dashboard.address).version()


@pytest.mark.parametrize("answer", ["<html>", [1], {"version": 4}])
def test_what_is_not_ray_is_not_taken_for_it(dashboard, answer: object) -> None:
    dashboard.answers["/api/version"] = answer
    with pytest.raises(ClusterError, match="is not a Ray dashboard"):
        JobsApi(dashboard.address).version()


def test_what_does_not_speak_http_is_not_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        api = JobsApi(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.1)
        with pytest.raises(NobodyAnswersError, match="timed out"):
            api.version()


def test_an_address_without_scheme_is_refused() -> None:
    with pytest.raises(ClusterError, match=r"is no address; expected e\.g\. http://127"):
        JobsApi("127.0.0.1:8265").version()


def test_a_job_is_asked_for_by_name(dashboard) -> None:
    dashboard.answers |= {
        "/api/jobs/x": {"status": "FAILED", "message": None, "driver_exit_code": 7},
        "/api/jobs/x/logs": {"logs": "one\n"},
        "/api/jobs/x/stop": {"stopped": True},
    }
    api = JobsApi(dashboard.address + "/")
    state = api.state("x")
    assert (state.exit_code, state.has_ended, state.message) == (7, True, "")
    assert api.logs("x") == "one\n"
    api.stop("x")
    assert dashboard.asked[-1] == "POST /api/jobs/x/stop"


def test_the_head_that_ray_address_names_is_the_one_that_runs(
    dashboard, own_ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", dashboard.address)
    assert running_head() == dashboard.address


def test_a_head_on_this_machine_is_found(
    dashboard, own_ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(jobs_api, "DEFAULT_ADDRESS", dashboard.address)
    assert running_head() == dashboard.address


def test_no_head_is_no_error(
    own_ray: Path, monkeypatch: pytest.MonkeyPatch, closed_address: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(jobs_api, "DEFAULT_ADDRESS", closed_address)
    assert running_head() is None


def test_a_named_head_that_does_not_answer_is_an_error(
    own_ray: Path, monkeypatch: pytest.MonkeyPatch, closed_address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", closed_address)
    with pytest.raises(ClusterError, match="start that Ray, or unset RAY_ADDRESS"):
        running_head()


def test_something_else_in_the_place_of_ray_is_named(
    dashboard, own_ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.answers["/api/version"] = "hello"
    monkeypatch.setenv("RAY_ADDRESS", dashboard.address)
    expected = "is not a Ray dashboard; set RAY_ADDRESS=local to start a Ray beside it"
    with pytest.raises(ClusterError, match=expected):
        running_head()


def test_ray_address_local_stands_for_none_that_runs(
    dashboard, own_ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_api, "DEFAULT_ADDRESS", dashboard.address)
    assert running_head() is None
    assert dashboard.asked == []
