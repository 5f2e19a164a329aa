"""Removal of passwords from everything that a job stores, tracks or prints.

Credentials stay in the job file and in the environment. All text that goes to storage, to MLflow
or to the console passes through here first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")

HIDDEN = "***"
LOGIN = re.compile(r"""(?<=://)(?:[^/\s:@'"]*:[^\s'"]*|[^/\s'"]*)@""")
"""`user:password@` after `://`. A password may contain '@' and '/', as in SQLAlchemy."""
QUERY = re.compile(
    r"""([?&][\w.-]*(?:password|passwd|pwd|secret|token|signature|credential|sig|api_?key)=)"""
    r"""[^&\s'"]+""",
    re.IGNORECASE,
)
"""`?password=...`, as in database URLs and signed URLs."""
SECRET_NAME = re.compile(
    r"SECRET|PASSWORD|PASSWD|TOKEN|ACCESS_KEY|API_KEY|CREDENTIAL", re.IGNORECASE
)
SHORTEST = 6
"""Shortest secret that is replaced: shorter values are words that may occur in any text."""


def without_passwords(value: T) -> T:
    """The text, or JSON values with all their texts, without passwords in URLs."""
    return cast(T, _cleaned(value))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return QUERY.sub(rf"\1{HIDDEN}", LOGIN.sub("", value))
    if isinstance(value, Mapping):
        return {key: _cleaned(item) for key, item in value.items()}
    return type(value)(map(_cleaned, value)) if isinstance(value, list | tuple) else value


def sayable(text: str) -> str:
    """A message of another program, without passwords in URLs and secrets of the environment."""
    secrets = [
        value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SHORTEST
    ]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return without_passwords(text)
