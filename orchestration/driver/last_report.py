"""Hand a trial's last reports to Tune before the trial ends.

What workers report waits in a queue of Tune's until the trial's main thread takes it. If the trial
ends before, its own last word fills the place that the main thread needs for the report it has just
taken: it waits for itself, for ever (Ray 2.60). It happens to cases whose workers end at once after
a report, on a busy machine. So the trial sends a last report of its own, and ends when that one has
been taken: what came before is gone then.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

LAST = "is_last_report"
"""In the report that is nothing but the last; nobody else needs to hear of it."""

TIMEOUT_S = 60.0
"""Who has stopped the trial takes no more reports."""

_taken = threading.Event()
"""Of the one trial of this process."""


def hand_over() -> None:
    """In the trial's own thread, at its end: returns when the main thread has taken all reports."""
    from ray.train._internal.session import get_session  # where Tune's own callback takes it from
    from ray.util.queue import Full

    _taken.clear()
    try:
        get_session()._get_or_create_inter_actor_queue().put({LAST: True}, timeout=TIMEOUT_S)
    except Full:
        return
    _taken.wait(TIMEOUT_S)


def note_taken(result: Mapping[str, Any]) -> None:
    """In the trial's main thread, with every report that it hands to the driver."""
    if LAST in result:
        _taken.set()
