"""Tables and lines as plain text, for logs and files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def plain_text(width: int, *parts: Table | str) -> str:
    """Render tables within `width` characters, and lines without wrapping or trailing spaces."""
    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), markup=False)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).rstrip()


def duration(seconds: float) -> str:
    """Human-readable duration: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
