"""Reference numbers from outside this project, in `tests/golden/`."""

from __future__ import annotations

import json
from typing import Any

from tests.support.repository import REPOSITORY


def golden(name: str) -> dict[str, Any]:
    """Content of a file; its keys "source" and "made_by" document its origin."""
    values: dict[str, Any] = json.loads((REPOSITORY / "tests" / "golden" / name).read_text())
    assert {"source", "made_by"} <= set(values), f"{name} does not say where it comes from"
    return values
