"""Numbers that JSON does not have: a loss that is no number any more still makes a result."""

from __future__ import annotations

from math import isfinite
from typing import Any


def finite(values: Any) -> Any:
    """The same plain values with None in place of NaN and infinity."""
    if isinstance(values, dict):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    if isinstance(values, float) and not isfinite(values):
        return None
    return values
