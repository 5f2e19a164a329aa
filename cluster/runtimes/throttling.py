"""Thermal throttling: a hot phone gets slower, which would distort latencies."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from cluster.runtimes.base import MeasurementError
from cluster.runtimes.timing import Timing

MAX_RISE = 1.10
"""Largest accepted rise of the median program: slowest later round over first round."""


def middle_rise(timings: Sequence[Timing]) -> float:
    """Median rise over the programs: a single one may be noise, the median is due to the phone.

    1 if nothing was timed.
    """
    return median([timing.rise for timing in timings] or [1.0])


def check_throttling(timings: Sequence[Timing], target: str = "mobile") -> None:
    """Reject timings of a phone that became slower from round to round.

    Args:
        timings: timings of programs that were timed together.
        target: name of their target, for the message.

    Raises:
        MeasurementError: their `middle_rise` is above `MAX_RISE`.
    """
    rise = middle_rise(timings)
    if rise > MAX_RISE:
        worst = max(timing.rise for timing in timings)
        raise MeasurementError(
            f"the phone throttles: of {len(timings)} programs the one in the middle has later "
            f"medians {rise - 1:.0%} above the first, the worst {worst - 1:.0%}; "
            f"expected no more than {MAX_RISE - 1:.0%} above the first; let it cool down, raise "
            f"targets.{target}.phone.cool_down_s"
        )
