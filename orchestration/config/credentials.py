"""Passwords that stand in addresses: nothing that a job writes, records or says has them.

What a job needs to reach a server stays in its file and in the environment. Whatever goes into
storage, into MLflow or onto a console passes through here first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")

HIDDEN = "***"
LOGIN = re.compile(r"""(?<=://)(?:[^/\s:@'"]*:[^\s'"]*|[^/\s'"]*)@""")
"""`user:password@` behind `://`. A password may hold '@' and '/', as SQLAlchemy takes it."""
QUERY = re.compile(
    r"""([?&][\w.-]*(?:password|passwd|pwd|secret|token|signature|credential|sig|api_?key)=)"""
    r"""[^&\s'"]+""",
    re.IGNORECASE,
)
"""`?password=...`, as databases and signed addresses have it."""
SECRET_NAME = re.compile(
    r"SECRET|PASSWORD|PASSWD|TOKEN|ACCESS_KEY|API_KEY|CREDENTIAL", re.IGNORECASE
)
SHORTEST = 6
"""Values of the environment with fewer letters are words that may stand anywhere."""


def without_passwords(value: T) -> T:
    """The same text, or plain values with all their texts, without logins in addresses."""
    return cast(T, _cleaned(value))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return QUERY.sub(rf"\1{HIDDEN}", LOGIN.sub("", value))
    if isinstance(value, Mapping):
        return {key: _cleaned(one) for key, one in value.items()}
    return type(value)(map(_cleaned, value)) if isinstance(value, list | tuple) else value


def sayable(text: str) -> str:
    """A message of another program: without logins, and without secrets of the environment."""
    secrets = [
        value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SHORTEST
    ]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return without_passwords(text)
