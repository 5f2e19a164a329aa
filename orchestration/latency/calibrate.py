"""Calibration of a latency table: whole networks, measured where its parts were.

Random networks of the space are lowered as long as time allows, all are timed against each other,
a line is fitted to the first of them and judged on the others. The reference network is one of
those that are fitted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING

from cluster.runtimes.throttling import check_throttling
from cluster.runtimes.timing import Timing
from nas_core.architecture import Architecture, Model
from nas_core.calibration import FEWEST, Calibration, Errors, MeasuredNetwork, affine_fit
from nas_core.latency import LatencyTable
from orchestration.programs.compile_workers import lower
from orchestration.programs.timing_workers import Program, timed

if TYPE_CHECKING:
    from orchestration.latency.measurement_setup import MeasurementSetup

TIMING_S = 60.0
"""Time that all networks of a calibration are timed for, about; five rounds at least."""


@dataclass(frozen=True, kw_only=True)
class CalibrationSize:
    """How much of a calibration there is."""

    fitted: int = 12
    checked: int = 24
    seconds: float | None = None
    """No more networks are lowered after this time; 4 are fitted and 4 checked in any case."""
    others: tuple[Model, ...] = ()
    """Networks that are measured beside them: baselines, published ones."""
    names: tuple[str, ...] = ()
    """What they are called."""

    @property
    def networks(self) -> int:
        """At most."""
        return self.fitted + self.checked


def random_networks(table: LatencyTable, count: int) -> list[Architecture]:
    """Different random networks of a space, from the fastest to the slowest, not the reference.

    Evenly drawn networks would be of one size, and of large kernels where these are slow; budgets
    are below that. Each network is asked for a latency of its own, by the sum of its parts: evenly
    spread on a logarithmic scale, the same for everyone who asks.
    """
    found: dict[Architecture, None] = {}
    reference = Architecture.reference(table.space)
    for draw in range(20 * count):
        if len(found) == count:
            break
        one = Architecture.from_path(table.space, _network_near(table, draw))
        if one != reference:
            found[one] = None
    return list(found)


GOLDEN = 0.618
"""Multiples of it, less their whole part, are spread evenly, however many there are."""


def _network_near(table: LatencyTable, draw: int) -> list[int]:
    """A random network, changed at random sites as long as that brings it nearer to its latency."""
    import torch

    from nas_core.gates import uniform_path
    from nas_core.randomness import generator

    costs, fixed_ms = table.costs_ms(table.space), table.fixed_ms(table.space)
    fastest, slowest = table.range_ms()
    wanted = log(fastest) + (0.05 + 0.9 * (draw * GOLDEN % 1)) * (log(slowest) - log(fastest))

    def miss(path: Sequence[int]) -> float:
        total = sum((row[j] for row, j in zip(costs, path, strict=True)), start=fixed_ms)
        return abs(log(total) - wanted)

    rng = generator(0, "calibration network", draw)
    path = uniform_path([len(row) for row in costs], rng)
    for site in torch.randint(len(path), (10 * len(path),), generator=rng).tolist():
        choice = int(torch.randint(len(costs[site]), (1,), generator=rng))
        changed = [*path[:site], choice, *path[site + 1 :]]
        if miss(changed) <= miss(path):
            path = changed
    return path


def calibrated(
    table: LatencyTable,
    bench: MeasurementSetup,
    extent: CalibrationSize,
    progress: Callable[[int], None],
) -> LatencyTable:
    """The table, fitted to whole networks, with all that was measured for it."""
    reference, others = Architecture.reference(bench.space), list(extent.others)
    programs = lower(bench.space, bench.target, [reference, *others, None])
    networks: list[Architecture] = []
    for some, lowered in _lowered(table, bench, extent):
        networks += some
        programs += lowered
        progress(len(networks))
    timings = timed_networks(bench, programs)
    known = 1 + len(others)
    empty_ms = timings.pop(known).median_ms
    whole = [timing.without(empty_ms) for timing in timings]
    return _with_networks(table, extent, networks, whole)


def _lowered(
    table: LatencyTable, bench: MeasurementSetup, extent: CalibrationSize
) -> Iterator[tuple[Sequence[Architecture], list[Program]]]:
    """Random networks with their programs, a few at a time, until time or networks are over."""
    drawn, began, few = random_networks(table, extent.networks), time.monotonic(), FEWEST
    for first in range(0, len(drawn), few):
        is_over = extent.seconds is not None and time.monotonic() - began > extent.seconds
        if is_over and first >= 2 * FEWEST:
            return
        some = drawn[first : first + few]
        yield some, lower(bench.space, bench.target, some)


def timed_networks(bench: MeasurementSetup, programs: Sequence[Program]) -> list[Timing]:
    """Timings of whole networks, call overhead included; in fewer rounds where they are slow."""
    settings, target = bench.settings, bench.target
    quick = replace(settings, samples_per_round=1)
    first = timed(programs, target, quick, 2, bench.node)
    sample_ms = sum(max(settings.sample_ms, timing.median_ms) for timing in first)
    round_s = settings.samples_per_round * sample_ms / 1e3
    rounds = max(settings.rounds, min(settings.network_rounds, int(TIMING_S / round_s)))
    timings = timed(programs, target, settings, rounds, bench.node)
    if target.device == "android":
        check_throttling(timings, target.name)
    return timings


def _with_networks(
    table: LatencyTable,
    extent: CalibrationSize,
    networks: Sequence[Architecture],
    timings: Sequence[Timing],
) -> LatencyTable:
    reference, *rest = timings
    split = len(extent.others)
    others = [
        _measured(table, name, model, timing)
        for name, model, timing in zip(extent.names, extent.others, rest[:split], strict=True)
    ]
    drawn = [
        _measured(table, "random", network, timing)
        for network, timing in zip(networks, rest[split:], strict=True)
    ]
    number = min(extent.fitted, max(FEWEST, len(drawn) // 3))
    own = _measured(table, "reference", Architecture.reference(table.space), reference)
    return fitted(
        replace(table, reference_ms=own.measured_ms, reference_spread=own.spread),
        [own, *drawn[:number]],
        drawn[number:],
        others,
    )


def _measured(table: LatencyTable, name: str, model: Model, timing: Timing) -> MeasuredNetwork:
    is_member = isinstance(model, Architecture) and model.space == table.space
    return MeasuredNetwork(
        name=name,
        ops=model.ops if is_member and isinstance(model, Architecture) else None,
        parts_ms=table.parts_ms(model) if is_member and isinstance(model, Architecture) else None,
        measured_ms=timing.median_ms,
        spread=timing.spread,
    )


def fitted(
    table: LatencyTable,
    networks: Sequence[MeasuredNetwork],
    checked: Sequence[MeasuredNetwork],
    others: Sequence[MeasuredNetwork] = (),
) -> LatencyTable:
    """The table with a line through `networks`, judged on those that are `checked`."""
    parts = [one.parts_ms for one in networks if one.parts_ms is not None]
    fastest = table.parts_ms(table.fastest())
    scale, offset_ms = affine_fit(parts, [one.measured_ms for one in networks], fastest)
    errors = None
    if len(checked) >= FEWEST:
        predicted = [scale * (one.parts_ms or 0.0) + offset_ms for one in checked]
        errors = Errors.of(predicted, [one.measured_ms for one in checked])
    calibration = Calibration(
        fitted=tuple(networks), checked=tuple(checked), errors=errors, others=tuple(others)
    )
    return replace(table, scale=scale, offset_ms=offset_ms, calibration=calibration)


def refitted(table: LatencyTable, network: Architecture, measured_ms: float) -> LatencyTable:
    """The table after a derived network missed its budget: its measurement joins the fit, and the
    table is scaled to pass through it, since it is the network that counts."""
    known = table.calibration
    if known is None:
        return table.through(network, measured_ms)
    own = MeasuredNetwork(
        name="derived",
        ops=network.ops,
        parts_ms=table.parts_ms(network),
        measured_ms=measured_ms,
        spread=0.0,
    )
    joined = fitted(table, [*known.fitted, own], known.checked, known.others)
    return joined.through(network, measured_ms)
