"""Throttling: a phone that gets hot becomes slower, and what it measures then is heat."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from cluster.runtimes.base import MeasurementError
from cluster.runtimes.timing import Timing

MAX_RISE = 1.10
"""Largest median of a later round by that of the first, for the program in the middle."""


def middle_rise(timings: Sequence[Timing]) -> float:
    """Rise of the program in the middle: one that rises may be noise, most that do are the phone.

    1 where nothing was timed.
    """
    return median([timing.rise for timing in timings] or [1.0])


def check_throttling(timings: Sequence[Timing], target: str = "mobile") -> None:
    """Refuses timings of a phone that became slower from round to round.

    Args:
        timings: of programs that were timed together.
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
