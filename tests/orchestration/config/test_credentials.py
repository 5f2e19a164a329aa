"""Passwords are removed from texts, and nothing else is."""

from __future__ import annotations

import pytest

from orchestration.config.credentials import sayable, without_passwords

PLAIN = [
    "http://127.0.0.1:5000/#/experiments/1",
    "models:/digits-mobile@best",
    "sqlite:////home/me/proxyless/mlflow.db",
    "s3://bucket/folder",
    "mail me@example.com about https://example.com/a",
    'data: {path: "/images", flip: true}  # a@b',
    "https://example.com/#/experiments/1/runs?viewStateShareKey=proxyless",
]


@pytest.mark.parametrize("text", PLAIN)
def test_a_text_without_a_login_stays_as_it_is(text: str) -> None:
    assert without_passwords(text) == text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("http://user:hunter2@host:5000/x", "http://host:5000/x"),
        ("https://hunter2@host", "https://host"),
        ("postgresql://user:hunter2@host/db", "postgresql://host/db"),
        ("postgresql+psycopg://user:hun@ter2@host/db", "postgresql+psycopg://host/db"),
        ("postgresql://user:hun/ter@2@host/db", "postgresql://host/db"),
        ("s3://AKIA123:hun/ter2+x@bucket/folder", "s3://bucket/folder"),
        ("uri: 'http://:hunter2@host', seed: 0", "uri: 'http://host', seed: 0"),
        ('{"a": "http://u:hunter2@h", "b": "x@y"}', '{"a": "http://h", "b": "x@y"}'),
        (
            "postgresql://host/db?user=me&password=hunter2",
            "postgresql://host/db?user=me&password=***",
        ),
        ("https://h/x?X-Amz-Signature=hunter2&a=1", "https://h/x?X-Amz-Signature=***&a=1"),
        ("a http://u:hunter2@h b http://v:hunter2@i", "a http://h b http://i"),
    ],
)
def test_a_login_is_taken_out(text: str, cleaned: str) -> None:
    assert without_passwords(text) == cleaned


def test_values_are_cleaned_all_through_and_keep_their_types() -> None:
    address = "http://user:hunter2@host"
    values = {"record": {"uri": address, "seed": 0}, "cases": [{"path": address}, (address, None)]}
    assert without_passwords(values) == {
        "record": {"uri": "http://host", "seed": 0},
        "cases": [{"path": "http://host"}, ("http://host", None)],
    }


def test_a_secret_of_the_environment_is_said_by_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "short")
    text = "PUT with wJalrXUtnFEMI to http://me:x@host was a short one"
    assert sayable(text) == "PUT with *** to http://host was a short one"
