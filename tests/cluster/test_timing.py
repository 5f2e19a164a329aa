"""Timing: its arithmetic, with a clock that only the timed calls advance."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable
from functools import partial

import pytest

from cluster.runtimes.base import MeasurementError
from cluster.runtimes.timing import host_ms, time_calls


class Clock:
    """A clock that only advances when a call says so. Counts whole nanoseconds."""

    def __init__(self) -> None:
        self.ns = 0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.ns / 1e9

    def call(self, name: str, times_ms: Iterable[float]) -> Callable[[], None]:
        times = iter(times_ms)

        def run() -> None:
            self.ns += round(next(times) * 1e6)
            self.log.append(name)

        return run


def by(clock: Callable[[], float]) -> Callable[[Callable[[], object], int], float]:
    return partial(host_ms, clock=clock)


def test_calls_of_a_constant_time_take_that_time() -> None:
    clock = Clock()
    calls = [clock.call(str(ms), itertools.repeat(ms)) for ms in (0.25, 0.5, 40.0)]
    timings = time_calls(calls, run_ms=by(clock))
    for timing, ms in zip(timings, (0.25, 0.5, 40.0), strict=True):
        assert (timing.median_ms, timing.p10_ms, timing.p90_ms) == pytest.approx((ms, ms, ms))
        assert timing.spread == pytest.approx(0, abs=1e-9)
        assert timing.count == 15


def test_median_tenths_and_spread_are_those_of_the_samples() -> None:
    # Warm-up and the choice of the batch size take three calls of 5 ms; then a sample is one call.
    samples = [10, 11, 12, 20, 21, 22, 14, 15, 16]
    clock = Clock()
    (timing,) = time_calls(
        [clock.call("a", [5, 5, 5, *samples])], rounds=3, samples_per_round=3, run_ms=by(clock)
    )
    assert timing.median_ms == pytest.approx(15)
    # Nine samples lie at 0, 1/8, ... 1; a tenth is 0.8 of the way from the first to the second.
    assert timing.p10_ms == pytest.approx(10.8)
    assert timing.p90_ms == pytest.approx(21.2)
    assert timing.spread == pytest.approx((21 - 11) / 15)
    assert timing.rise == pytest.approx(21 / 11)
    assert timing.count == 9


def test_samples_are_taken_in_rounds_over_all_calls() -> None:
    clock = Clock()
    calls = [clock.call(name, itertools.repeat(3)) for name in "ABC"]
    time_calls(calls, rounds=2, samples_per_round=2, run_ms=by(clock))
    assert "".join(clock.log) == "AAABBBCCC" + "AABBCC" * 2


def test_a_target_rests_between_rounds_and_not_within_them() -> None:
    clock = Clock()
    calls = [clock.call(name, itertools.repeat(3)) for name in "AB"]
    time_calls(
        calls,
        rounds=3,
        samples_per_round=1,
        run_ms=by(clock),
        rest=lambda: clock.log.append("-"),
    )
    assert "".join(clock.log) == "AAABBB" + "AB-AB-AB"


def test_a_sample_lasts_as_long_as_asked() -> None:
    clock = Clock()
    stamps: list[int] = []

    def watched() -> float:
        stamps.append(clock.ns)
        return clock()

    time_calls([clock.call("a", itertools.repeat(0.03))], sample_ms=2.0, run_ms=by(watched))
    lengths_ms = [(end - start) / 1e6 for start, end in zip(stamps[::2], stamps[1::2], strict=True)]
    assert min(lengths_ms[-15:]) == max(lengths_ms[-15:]) == pytest.approx(2.01)  # 67 calls


def test_a_slow_first_call_is_not_counted() -> None:
    clock = Clock()
    call = clock.call("a", itertools.chain([1000.0], itertools.repeat(0.5)))
    (timing,) = time_calls([call], run_ms=by(clock))
    assert timing.p90_ms == pytest.approx(0.5)


@pytest.mark.parametrize("stalled", [1, 2, 3])
def test_a_stall_in_the_warm_up_makes_no_shorter_samples(stalled: int) -> None:
    clock = Clock()
    stamps: list[int] = []

    def watched() -> float:
        stamps.append(clock.ns)
        return clock()

    times = itertools.chain([0.01] * stalled, [3.0], itertools.repeat(0.01))
    time_calls([clock.call("a", times)], sample_ms=2.0, run_ms=by(watched))
    lengths_ms = [(end - start) / 1e6 for start, end in zip(stamps[::2], stamps[1::2], strict=True)]
    assert min(lengths_ms[-15:]) >= 2.0


def test_what_is_left_without_the_empty_call_wobbles_by_as_much() -> None:
    clock = Clock()
    (timing,) = time_calls(
        [clock.call("a", [12, 12, 12, *[12] * 3, *[12.6] * 3])], rounds=2, run_ms=by(clock)
    )
    left = timing.without(10.0)
    assert left.spread * left.median_ms == pytest.approx(0.6)
    assert timing.without(20.0).median_ms == 0.0


def test_a_call_that_takes_no_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.runtimes.timing.MAX_BATCH", 1000)
    clock = Clock()
    with pytest.raises(MeasurementError, match="nothing is computed"):
        time_calls([clock.call("a", itertools.repeat(0))], run_ms=by(clock))


def test_one_sample_has_no_spread_and_is_refused() -> None:
    with pytest.raises(ValueError, match="expected two samples or more"):
        time_calls([lambda: None], rounds=1, samples_per_round=1)


def test_garbage_is_collected_again_afterwards() -> None:
    states: list[bool] = []
    time_calls([lambda: states.append(gc.isenabled())], sample_ms=0.01)
    assert not any(states)
    assert gc.isenabled()
