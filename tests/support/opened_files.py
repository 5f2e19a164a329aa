"""Files that the code under test opens."""

from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import pytest


def count_opened_files(patch: pytest.MonkeyPatch, suffix: str) -> list[Path]:
    """Paths of files with this suffix, filled as they are opened; one entry for each time."""
    opened: list[Path] = []
    real = io.open

    def noted(file: Any, *args: Any, **named: Any) -> Any:
        if not isinstance(file, int) and str(file).endswith(suffix):
            opened.append(Path(file))
        return real(file, *args, **named)

    patch.setattr(io, "open", noted)  # pathlib
    patch.setattr(builtins, "open", noted)  # all others
    return opened
