"""Digests of JSON values."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(values: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits, independent of the order of keys."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
