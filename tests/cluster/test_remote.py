"""A remote Ray cluster: accepted addresses, and errors if it takes no job."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import remote
from cluster.jobs_api import ClusterError, NobodyAnswersError, ensure_token, token
from cluster.remote import (
    S3_KEYS,
    S3_PLACE,
    auth_mode,
    check_reachable,
    checked_address,
    is_in_the_clear,
    s3_names,
)


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8265", "https://ray.example.com", "http://[::1]:8265", "http://a.b/ray"],
)
def test_an_address_of_a_dashboard_is_taken(address: str) -> None:
    assert checked_address(address) == address
    assert checked_address(address + "/") == address


@pytest.mark.parametrize(
    "address",
    [
        *("", "auto", "127.0.0.1:8265", "ray://head:10001", "file:///etc/passwd", "http://"),
        *("http://:8265", "http://a:0", "http://a?b=c", "http://a#b", "http://a b", "http://a\n"),
    ],
)
def test_what_is_no_address_is_refused_with_one_that_is(address: str) -> None:
    with pytest.raises(
        ClusterError, match=r"expected http:// or https://, a host and a port, e\.g\."
    ):
        checked_address(address)


@pytest.mark.parametrize("address", ["http://a:http", "http://a:99999", "http://[::1"])
def test_an_address_that_cannot_be_read_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match=r"^--address is no address: .*; expected e\.g\. http"):
        checked_address(address)


@pytest.mark.parametrize("login", ["me:hush@", "hush@", "me:hush@x@"])
def test_a_login_in_an_address_is_refused_and_not_repeated(login: str) -> None:
    with pytest.raises(ClusterError, match="a Ray takes a token instead") as told:
        checked_address(f"https://{login}ray.example.com")
    assert "hush" not in str(told.value)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://10.0.0.5:8265", True),
        ("https://10.0.0.5:8265", False),
        ("http://localhost:8265", False),
        ("http://[::1]:8265", False),
    ],
)
def test_only_what_leaves_this_machine_unencrypted_is_in_the_clear(
    address: str, expected: bool
) -> None:
    assert is_in_the_clear(address) is expected


def test_a_ray_of_another_version_is_refused(dashboard, own_ray: Path) -> None:
    check_reachable(dashboard.address)
    dashboard.answers["/api/version"] = {"ray_version": "2.61.0"}
    with pytest.raises(ClusterError, match=r"is 2\.61\.0, and this project runs on .*Dockerfile"):
        check_reachable(dashboard.address)


def test_a_ray_that_does_not_answer_is_told_with_the_way_to_it(own_ray: Path) -> None:
    with pytest.raises(NobodyAnswersError, match=r"nothing answers at .*; start that Ray, or open"):
        check_reachable("http://127.0.0.1:1")


def test_a_refused_token_is_told_with_the_place_for_the_right_one(dashboard, own_ray: Path) -> None:
    dashboard.token = "right"
    with pytest.raises(
        ClusterError, match=r"refuses requests without a token.*RAY_AUTH_TOKEN_PATH"
    ):
        check_reachable(dashboard.address)


def test_something_else_at_the_address_is_named(dashboard, own_ray: Path) -> None:
    dashboard.answers["/api/version"] = "<html>"
    with pytest.raises(ClusterError, match=r"is not a Ray dashboard$"):
        check_reachable(dashboard.address)


def test_the_token_is_sent_where_there_is_one(own_ray: Path, monkeypatch) -> None:
    assert auth_mode() == {"RAY_AUTH_MODE": "disabled"}
    ensure_token()
    assert token()
    assert auth_mode() == {"RAY_AUTH_MODE": "token"}


def test_keys_of_s3_go_along_only_where_that_is_asked(monkeypatch) -> None:
    for name in S3_KEYS:
        monkeypatch.setenv(name, "x")
    assert s3_names(with_keys=False) == S3_PLACE
    assert s3_names(with_keys=True) == S3_PLACE + S3_KEYS


def test_keys_that_are_not_there_are_named(monkeypatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(ClusterError, match="--aws-credentials: AWS_SECRET_ACCESS_KEY not set in"):
        s3_names(with_keys=True)


def test_the_version_is_that_of_the_installed_ray() -> None:
    import ray

    assert remote.version("ray") == ray.__version__
