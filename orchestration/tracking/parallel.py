"""Concurrent map over threads whose results arrive in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from orchestration.tracking.retries import GivenUpError, Patience

Item = TypeVar("Item")
Output = TypeVar("Output")


def in_order(
    work: Callable[[Item], Output], items: Sequence[Item], threads: int, patience: Patience
) -> Generator[Output, None, None]:
    """Results of `work` in the order of `items`; all stop if one fails or the generator is closed.

    Args:
        work: called in a thread; its requests go through `patience`.
        items: arguments of the calls.
        threads: number of threads; with one, each item is processed when its result is requested.
        patience: shared by all threads.
    """
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        except BaseException as error:
            patience.give_up()
            pool.shutdown(cancel_futures=True)
            raise _first(futures) or error if isinstance(error, GivenUpError) else error from None


def _first(futures: Sequence[Future[Output]]) -> BaseException | None:
    """The error that made the other threads give up."""
    errors = [future.exception() for future in futures if not future.cancelled()]
    return next((e for e in errors if e is not None and not isinstance(e, GivenUpError)), None)
