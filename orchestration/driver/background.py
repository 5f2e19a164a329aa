"""A call that is repeated beside what goes on, and made once more at its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(call: Callable[[], None], every_s: float, name: str) -> Iterator[None]:
    """While the block runs `call` is made in a thread of its own, so many seconds apart; the last
    time when the block has ended, so that nothing of its end is missed."""
    ended = threading.Event()

    def repeat() -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(every_s)
            call()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
