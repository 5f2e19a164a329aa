"""Calibration: fits compared with numpy, errors by hand, JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.calibration import Calibration, Errors, MeasuredNetwork, affine_fit

times = st.floats(0.01, 100.0)


def test_points_on_a_line_give_that_line() -> None:
    parts = [1.0, 2.0, 4.0, 7.0]
    scale, offset = affine_fit(parts, [1.2 * p + 0.3 for p in parts], smallest_ms=0.5)
    assert (scale, offset) == pytest.approx((1.2, 0.3))


@given(st.lists(st.tuples(times, times), min_size=3, max_size=12))
def test_the_fit_is_that_of_least_squares_in_relative_errors(
    points: list[tuple[float, float]],
) -> None:
    parts, measured = (np.array(values) for values in zip(*points, strict=True))
    scale, offset = affine_fit(parts.tolist(), measured.tolist(), smallest_ms=1e-9)
    if offset == 0.0:  # only a factor, since a line would have a negative slope
        design = (parts / measured)[:, None]
    else:
        design = np.stack([parts / measured, 1 / measured], axis=1)
    result = np.linalg.lstsq(design, np.ones(len(parts)), rcond=None)[0]
    assert scale > 0
    assert [scale, offset][: len(result)] == pytest.approx(result.tolist(), rel=1e-4, abs=1e-6)


def test_an_offset_that_would_leave_the_fastest_network_no_time_is_left_out() -> None:
    # 2 p - 1.5: a network of 0.8 ms in parts would take 0.1 ms.
    scale, offset = affine_fit([2.0, 4.0, 8.0], [2.5, 6.5, 14.5], smallest_ms=0.8)
    assert offset == 0.0
    assert 1.0 < scale < 2.0


def test_networks_of_equal_sums_give_a_factor_alone() -> None:
    assert affine_fit([2.0, 2.0], [3.0, 3.0], smallest_ms=1.0) == pytest.approx((1.5, 0.0))


@pytest.mark.parametrize(("parts", "measured"), [([], []), ([1.0], [0.0]), ([-1.0], [2.0])])
def test_a_fit_to_no_time_is_refused(parts: list[float], measured: list[float]) -> None:
    with pytest.raises(ValueError, match="expected times above 0"):
        affine_fit(parts, measured, smallest_ms=1.0)


def test_errors_are_those_of_the_definition() -> None:
    result = Errors.of([1.0, 2.2, 2.8, 4.0], [1.0, 2.0, 3.0, 4.4])
    misses = [0.0, 0.1, 0.2 / 3, 0.4 / 4.4]
    assert result.mape == pytest.approx(sum(misses) / 4)
    assert result.rmse_ms == pytest.approx(((0.04 + 0.04 + 0.16) / 4) ** 0.5)
    assert (result.within_5, result.within_10) == (0.25, 0.75)  # 2.2 / 2.0 is 10 % and a rounding
    assert (result.spearman, result.kendall) == pytest.approx((1.0, 1.0))


def test_a_calibration_survives_json() -> None:
    one = MeasuredNetwork(name="random", ops=("a", "b"), parts_ms=1.0, measured_ms=2.0, spread=0.1)
    other = MeasuredNetwork(
        name="mobilenet_v2", ops=None, parts_ms=None, measured_ms=3.0, spread=0.0
    )
    errors = Errors.of([1.0, 2.0], [1.0, 3.0])
    kept = Calibration(fitted=(one,), checked=(one, one), errors=errors, others=(other,))
    assert Calibration.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept
