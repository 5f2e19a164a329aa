"""Calibration figures: contents and determinism."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from nas_core.architecture import Architecture
from nas_core.calibration import MeasuredNetwork
from nas_core.latency import LatencyTable
from nas_core.space import proxyless_small
from orchestration.latency.calibrate import fitted, random_networks
from orchestration.reports.figures.calibration import (
    calibration_figure,
    calibration_png,
    predicted_ms,
)
from tests.support.latency_tables import by_kernel, table_of

TABLE = table_of(proxyless_small(resolution=16), by_kernel)


def calibrated(others: tuple[MeasuredNetwork, ...] = ()) -> LatencyTable:
    networks = [
        MeasuredNetwork(
            name="random",
            ops=network.ops,
            parts_ms=TABLE.parts_ms(network),
            measured_ms=1.2 * TABLE.parts_ms(network) + 0.01,
            spread=0.01,
        )
        for network in random_networks(TABLE, 12)
    ]
    return fitted(TABLE, networks[:4], networks[4:], others)


def test_the_fit_of_a_line_predicts_what_was_measured() -> None:
    table = calibrated()
    known = table.calibration
    assert known is not None
    for item in known.checked:
        assert predicted_ms(table, item) == pytest.approx(item.measured_ms)


def test_random_networks_are_different_and_not_the_reference() -> None:
    result = random_networks(TABLE, 36)
    assert len(set(result)) == 36
    assert Architecture.reference(TABLE.space) not in result
    assert result[:8] == random_networks(TABLE, 8)


def test_random_networks_are_spread_from_the_fastest_to_the_slowest() -> None:
    fastest, slowest = TABLE.range_ms()
    result = sorted(TABLE.latency_ms(network) for network in random_networks(TABLE, 24))
    assert result[2] < fastest * (slowest / fastest) ** 0.25
    assert result[-3] > fastest * (slowest / fastest) ** 0.75


@pytest.mark.slow
def test_the_picture_is_the_same_twice_and_another_with_a_baseline() -> None:
    baseline = MeasuredNetwork(
        name="mobilenet_v2", ops=None, parts_ms=None, measured_ms=0.3, spread=0.0
    )
    far = replace(baseline, name="resnet34", measured_ms=30.0)
    plain, again = calibration_png(calibrated()), calibration_png(calibrated())
    more = calibration_png(calibrated((baseline, far)))
    assert plain == again != more
    assert Image.open(io.BytesIO(more)).width > 800


def test_baselines_within_and_beyond_leave_the_picture_whole() -> None:
    times = {"mobilenet_v2": 0.3, "shufflenet_v2_1.5": 3.0, "mobilenet_v2_1.4": 6.0, "resnet34": 30}
    others = tuple(
        MeasuredNetwork(name=name, ops=None, parts_ms=None, measured_ms=ms, spread=0.0)
        for name, ms in times.items()
    )
    figure = calibration_figure(calibrated(others))
    figure.canvas.draw()
    (axes,) = figure.axes
    frame = axes.get_window_extent()
    assert frame.width > 0.7 * figure.bbox.width
    words = "\n".join(text.get_text() for text in axes.texts)
    assert all(name in words for name in times)
    for text in axes.texts:
        extent = text.get_window_extent()
        assert frame.x0 <= extent.x0
        assert extent.x1 <= frame.x1


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_name_does_not_stand_on_its_mark(factor: float) -> None:
    """The fastest network has its marker at the bottom of the axes, a slower one above its name."""
    fastest = min(calibrated().calibration.checked, key=lambda item: item.measured_ms)  # type: ignore[union-attr]
    times = {"parts_ms": factor * fastest.parts_ms, "measured_ms": factor * fastest.measured_ms}  # type: ignore[operator]
    figure = calibration_figure(calibrated((replace(fastest, name="found for 0.377 ms", **times),)))
    figure.canvas.draw()
    (axes,) = figure.axes
    (text,), mark = axes.texts, axes.collections[-1]
    ((_, at),) = mark.get_offset_transform().transform(mark.get_offsets())
    name = text.get_window_extent()
    assert not name.y0 < at + 4 < name.y1 + 8


def test_a_table_that_was_not_calibrated_has_no_picture() -> None:
    with pytest.raises(ValueError, match="was not calibrated on whole networks"):
        calibration_png(TABLE)
