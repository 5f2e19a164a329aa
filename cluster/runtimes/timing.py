"""Timing: medians of calls that take microseconds, on a machine that does other things too.

A sample is a batch of calls that lasts a few milliseconds, far above the resolution of the clock.
Samples are taken in rounds over all calls (A B C, A B C, ...), so that a slow minute of the machine
falls on all of them alike, and what differs between rounds is told as the spread.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median, quantiles

from cluster.runtimes.base import MeasurementError

MAX_BATCH = 1 << 22
"""Calls per sample; a call that needs more than these to fill a sample does no work."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one call takes, over `count` samples."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    spread: float
    """(largest - smallest median of a round) / median."""
    rise: float
    """Largest median of a later round / that of the first: a device that throttles is above 1."""
    count: int

    def without(self, overhead_ms: float) -> Timing:
        """The same less an empty call; nothing takes less than no time.

        The spread is of what is left: what a call wobbles by is more of a part that is short.
        """
        left_ms = self.median_ms - overhead_ms
        return replace(
            self,
            median_ms=max(0.0, left_ms),
            spread=self.spread * self.median_ms / left_ms if left_ms > 0 else self.spread,
            p10_ms=max(0.0, self.p10_ms - overhead_ms),
            p90_ms=max(0.0, self.p90_ms - overhead_ms),
        )


def time_calls(
    calls: Sequence[Callable[[], object]],
    *,
    rounds: int = 5,
    sample_ms: float = 2.0,
    samples_per_round: int = 3,
    run_ms: Callable[[Callable[[], object], int], float] | None = None,
    rest: Callable[[], None] | None = None,
) -> list[Timing]:
    """Times calls against each other, after a warm-up.

    A call shorter than a sample takes about `rounds * samples_per_round * sample_ms`, and a third
    more for the warm-up. Garbage is not collected meanwhile.

    Args:
        calls: what to time; each is run in this thread.
        rounds: passes over all calls, at least 1.
        sample_ms: a sample is as many calls as last this long, one at least.
        samples_per_round: samples of a call that follow each other, at least 1.
        run_ms: milliseconds that a call takes, so many times in a row; by this machine's clock
            where left out.
        rest: called between two rounds.

    Returns:
        One timing per call, in their order.

    Raises:
        MeasurementError: a call takes no measurable time.
    """
    if rounds < 1 or samples_per_round < 1 or rounds * samples_per_round < 2:
        raise ValueError(
            f"{rounds} rounds of {samples_per_round} samples; expected two samples or more"
        )
    run_ms = run_ms or host_ms
    with _no_garbage_collection():
        batches = [_batch_size(call, sample_ms, run_ms) for call in calls]
        samples: list[list[list[float]]] = [[] for _ in calls]
        for number in range(rounds):
            if number and rest is not None:
                rest()
            for call, batch, rounds_of_call in zip(calls, batches, samples, strict=True):
                rounds_of_call.append(
                    [run_ms(call, batch) / batch for _ in range(samples_per_round)]
                )
    return [_timing(rounds_of_call) for rounds_of_call in samples]


def _batch_size(
    call: Callable[[], object],
    sample_ms: float,
    run_ms: Callable[[Callable[[], object], int], float],
) -> int:
    """Calls that fill a sample. Found by running ever more of them: that is the warm-up, too."""
    call()
    batch = 1
    while batch <= MAX_BATCH:
        elapsed_ms = run_ms(call, batch)
        if elapsed_ms >= sample_ms * (1 - 1e-9):  # once more: it may have been a stall
            elapsed_ms = min(elapsed_ms, run_ms(call, batch))
        # A billionth of tolerance: batches that fill a sample exactly do so but for rounding.
        if elapsed_ms >= sample_ms * (1 - 1e-9):
            return batch
        fill = math.ceil(batch * sample_ms / elapsed_ms * (1 - 1e-9)) if elapsed_ms > 0 else 0
        batch = min(max(batch + 1, fill), 16 * batch)
    raise MeasurementError(
        f"{MAX_BATCH} calls took less than {sample_ms} ms: nothing is computed; "
        "compile the operation so that its output depends on its input"
    )


def host_ms(
    call: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Milliseconds of `times` calls in this thread, by a clock in seconds."""
    start = clock()
    for _ in range(times):
        call()
    return (clock() - start) * 1e3


def _timing(rounds: Sequence[Sequence[float]]) -> Timing:
    samples = [sample for samples in rounds for sample in samples]
    middle = median(samples)
    round_medians = [median(samples) for samples in rounds]
    tenths = quantiles(samples, n=10, method="inclusive")
    return Timing(
        median_ms=middle,
        p10_ms=tenths[0],
        p90_ms=tenths[-1],
        spread=(max(round_medians) - min(round_medians)) / middle,
        rise=max(round_medians[1:], default=round_medians[0]) / round_medians[0],
        count=len(samples),
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
