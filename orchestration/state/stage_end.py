"""Whether a stage that is kept has ended: a warm-up, or a search that several budgets share."""

from __future__ import annotations

from cluster.storage import Storage

END = "end.json"
"""Written last, in the folder of its checkpoints."""


def is_ended(folder: Storage) -> bool:
    """Whether the end of the stage is there."""
    return folder.exists(END)
