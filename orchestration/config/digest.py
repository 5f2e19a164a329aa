"""Content digests: equal for equal values, whatever their order."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(values: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits, equal for equal values whatever their order."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
