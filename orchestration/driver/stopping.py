"""Stopping a job: the first signal stops gracefully, the second one at once.

While workers train, a signal sets a flag that they read every step; they save a checkpoint and end,
and the driver waits for them. At any other time a signal interrupts the driver.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_TIMEOUT_S = 45.0
"""Time workers get to end before the driver is interrupted; `ray job stop` waits for 60 s."""


class StopSignal:
    """State of a stop request made by a signal."""

    def __init__(self) -> None:
        self.is_stopping = False
        """Whether a signal was received."""
        self._asked = threading.Event()
        self._is_gentle = False

    def on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        """Handler of the signals.

        Raises:
            KeyboardInterrupt: no graceful stop is possible, or this is the second signal.
        """
        was_asked, self.is_stopping = self.is_stopping, True
        if was_asked or not self._is_gentle:
            raise KeyboardInterrupt
        self._asked.set()

    @contextmanager
    def graceful_stop(self, ask: Callable[[], object]) -> Iterator[None]:
        """Context manager in which a signal calls `ask` in a thread; the block runs to its end."""
        ended = threading.Event()

        def wait() -> None:
            while not self._asked.wait(0.2):
                if ended.is_set():
                    return
            ask()
            if not ended.wait(STOP_TIMEOUT_S):
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
