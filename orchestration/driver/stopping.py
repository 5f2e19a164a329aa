"""Stopping a job: the first signal asks, the second one insists.

While workers train, a signal sets a flag that they read every step; they end with a checkpoint and
the driver waits for that. At any other time it ends what is going on.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_S = 45.0
"""Workers that have not ended by then are ended with the driver: `ray job stop` waits for 60 s."""


class StopSignal:
    """What a signal stops."""

    def __init__(self) -> None:
        self.is_stopping = False
        """Whether a signal came."""
        self._asked = threading.Event()
        self._is_gentle = False

    def on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        """Handler of the signals.

        Raises:
            KeyboardInterrupt: nobody can be asked, or has been before.
        """
        was_asked, self.is_stopping = self.is_stopping, True
        if was_asked or not self._is_gentle:
            raise KeyboardInterrupt
        self._asked.set()

    @contextmanager
    def graceful_stop(self, ask: Callable[[], object]) -> Iterator[None]:
        """Inside, a signal calls `ask` in a thread of its own and the block goes on to its end."""
        ended = threading.Event()

        def wait() -> None:
            while not self._asked.wait(0.2):
                if ended.is_set():
                    return
            ask()
            if not ended.wait(PATIENCE_S):
                _thread.interrupt_main()

        thread = threading.Thread(target=wait, name="stop_signal", daemon=True)
        thread.start()
        self._is_gentle = True
        try:
            yield
        finally:
            self._is_gentle = False
            ended.set()
            thread.join()
