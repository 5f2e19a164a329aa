"""Timing of calls that take microseconds, on a machine that may be doing other things.

A sample is a batch of calls that lasts a few milliseconds, far above the resolution of the clock.
Samples are taken in rounds over all calls (A B C, A B C, ...), so that a slow period of the machine
affects all of them alike. Differences between rounds are reported as the spread.
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
"""Largest number of calls per sample. A call that would need more is assumed to do no work."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Statistics of the time of one call."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    spread: float
    """Largest minus smallest median of a round, relative to `median_ms`."""
    rise: float
    """Largest median of a later round / median of the first; above 1 if the device throttles."""
    count: int
    """Number of samples."""

    def without(self, overhead_ms: float) -> Timing:
        """Subtract the time of an empty call; results are at least 0.

        The absolute spread does not change, so the relative one grows.
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
    """Time calls alternately, after a warm-up. Garbage collection is disabled meanwhile.

    Timing a call that is shorter than a sample takes about
    `rounds * samples_per_round * sample_ms`, plus a third for the warm-up.

    Args:
        calls: the calls to time; each runs in this thread.
        rounds: passes over all calls, at least 1.
        sample_ms: minimum duration of a sample, which consists of one or more calls.
        samples_per_round: consecutive samples of a call, at least 1.
        run_ms: function that runs a call a number of times and returns the milliseconds; default:
            `host_ms`.
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
    """Number of calls that fill a sample, found by increasing it; this is also the warm-up."""
    call()
    batch = 1
    while batch <= MAX_BATCH:
        elapsed_ms = run_ms(call, batch)
        # The factor 1 - 1e-9 allows for rounding when a batch fills a sample exactly.
        if elapsed_ms >= sample_ms * (1 - 1e-9):  # Repeated, since the machine may have stalled.
            elapsed_ms = min(elapsed_ms, run_ms(call, batch))
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
    """Time `times` calls in this thread, in total milliseconds. `clock` returns seconds."""
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
