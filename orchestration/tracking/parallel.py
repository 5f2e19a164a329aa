"""Work on several things at once, whose results are taken in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from orchestration.tracking.retries import GivenUpError, Patience

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_order(
    work: Callable[[Item], Found], items: Sequence[Item], threads: int, patience: Patience
) -> Generator[Found, None, None]:
    """Results in the order of `items`; where one fails, or is not wanted, all others stop.

    Args:
        work: called in a thread; its requests go through `patience`.
        items: of the work.
        threads: at once; with one, each is done when its result is asked for.
        patience: shared by all.
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


def _first(futures: Sequence[Future[Found]]) -> BaseException | None:
    """The error for which the others gave up."""
    errors = [future.exception() for future in futures if not future.cancelled()]
    return next((e for e in errors if e is not None and not isinstance(e, GivenUpError)), None)
