"""A process group of threads: workers in one process that sum in the order of ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn

from nas_core.workers import DivergenceError

Result = TypeVar("Result")


class Meeting:
    """Point at which the members of a group exchange values."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.brought: list[object] = [None] * size


class Member:
    """One worker of a group of threads. A test may change its `rank`, but not its slot."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.size = rank, meeting.barrier.parties
        self._slot, self._meeting = rank, meeting

    def sum(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            first, *others = self._exchange(tensor.detach().clone())
            total = first.clone()
            for other in others:
                total += other
            tensor.detach().copy_(total)

    @contextmanager
    def averaging(self, parameters: Sequence[nn.Parameter], facts: Tensor) -> Iterator[None]:
        yield
        self.sum([*(p.grad for p in parameters if p.grad is not None), facts])

    def signal_values(self) -> list[float]:
        return []

    def apply_signals(self, signals: list[float]) -> None:
        assert signals == []

    def agree(self, what: str, value: str) -> None:
        values = self._exchange(value)
        if len(set(values)) > 1:
            raise DivergenceError(what, values)

    def _exchange(self, mine: Result) -> list[Result]:
        meeting = self._meeting
        meeting.brought[self._slot] = mine
        meeting.barrier.wait()
        everything: list[Result] = list(meeting.brought)  # type: ignore[arg-type]
        meeting.barrier.wait()
        return everything


def on_all(size: int, work: Callable[[Member], Result]) -> list[Result]:
    """Results of `work` on all members, by rank. Raises the error of a failed member."""
    meeting = Meeting(size)

    def run(rank: int) -> Result:
        try:
            return work(Member(rank, meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        runs = [pool.submit(run, rank) for rank in range(size)]
    for error in (done.exception() for done in runs):
        # The other members fail because the barrier is broken.
        if error is not None and not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [done.result() for done in runs]
