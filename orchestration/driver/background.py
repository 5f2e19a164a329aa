"""Periodic calls in a background thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(call: Callable[[], None], every_s: float, name: str) -> Iterator[None]:
    """Context manager that calls `call` every `every_s` seconds in a thread.

    The last call is made after the block has ended, so that its final state is covered.
    """
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
