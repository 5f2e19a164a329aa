"""Throttling: a phone that gets hot becomes slower, and what it measures then is heat."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from cluster.runtimes import MeasurementError
from cluster.runtimes.timing import Timing

MAX_RISE = 1.10
"""Largest median of a later round by that of the first, for the program in the middle."""


def check_throttling(timings: Sequence[Timing], target: str = "mobile") -> None:
    """Refuses timings of a phone that became slower from round to round.

    One program that rises may be noise; that the program in the middle does is the phone.

    Args:
        timings: of programs that were timed together.
        target: name of their target, for the message.

    Raises:
        MeasurementError: the median over `timings` of their rise is above `MAX_RISE`.
    """
    rises = [timing.rise for timing in timings]
    if rises and median(rises) > MAX_RISE:
        raise MeasurementError(
            f"the phone throttles: of {len(rises)} programs the one in the middle has later "
            f"medians {median(rises) - 1:.0%} above the first, the worst {max(rises) - 1:.0%}; "
            f"expected no more than {MAX_RISE - 1:.0%} above the first; let it cool down, raise "
            f"targets.{target}.phone.cool_down_s"
        )
