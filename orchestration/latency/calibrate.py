"""Calibration of a latency table by whole networks, measured on the same node as its parts.

Random networks of the space are lowered as long as time allows and timed in interleaved rounds. A
line is fitted to some of them, the reference network included, and evaluated on the others.
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
from orchestration.programs.timing_workers import Program, timed

if TYPE_CHECKING:
    from orchestration.latency.measurement_setup import MeasurementSetup

TIMING_S = 60.0
"""Approximate duration of the timing of all networks, seconds. It has at least five rounds."""


@dataclass(frozen=True, kw_only=True)
class CalibrationSize:
    """Number of networks of a calibration."""

    fitted: int = 12
    checked: int = 24
    seconds: float | None = None
    """Time limit for lowering networks; at least 4 are fitted and 4 checked. None: no limit."""
    others: tuple[Model, ...] = ()
    """Further networks to measure: baselines and published ones."""
    names: tuple[str, ...] = ()
    """Names of `others`."""

    @property
    def networks(self) -> int:
        """Largest number of random networks."""
        return self.fitted + self.checked


def random_networks(table: LatencyTable, count: int) -> list[Architecture]:
    """Distinct random networks of a space, spread from the fastest to the slowest.

    Networks with uniformly drawn ops would all have similar latencies, above the usual budgets.
    Instead, each network is drawn for a latency of its own (the sum of its parts); these latencies
    are evenly spread on a logarithmic scale. The result is
    deterministic and does not contain the reference network.
    """
    networks: dict[Architecture, None] = {}
    reference = Architecture.reference(table.space)
    for draw in range(20 * count):
        if len(networks) == count:
            break
        network = Architecture.from_path(table.space, _network_near(table, draw))
        if network != reference:
            networks[network] = None
    return list(networks)


GOLDEN = 0.618
"""Golden ratio: fractional parts of its multiples are evenly spread in [0, 1) for any number."""


def _network_near(table: LatencyTable, draw: int) -> list[int]:
    """Random network near a latency: random changes are kept if they do not increase the error."""
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
    setup: MeasurementSetup,
    extent: CalibrationSize,
    progress: Callable[[int], None],
) -> LatencyTable:
    """Measure whole networks and fit the table to them."""
    reference, others = Architecture.reference(setup.space), list(extent.others)
    programs = setup.programs([reference, *others, None])
    networks: list[Architecture] = []
    for some, lowered in _lowered(table, setup, extent):
        networks += some
        programs += lowered
        progress(len(networks))
    timings = timed_networks(setup, programs)
    known = 1 + len(others)
    empty_ms = timings.pop(known).median_ms
    whole = [timing.without(empty_ms) for timing in timings]
    return _with_networks(table, extent, networks, whole)


def _lowered(
    table: LatencyTable, setup: MeasurementSetup, extent: CalibrationSize
) -> Iterator[tuple[Sequence[Architecture], list[Program]]]:
    """Yield random networks with their programs, a few at a time, until the time is up."""
    drawn, began, few = random_networks(table, extent.networks), time.monotonic(), FEWEST
    for first in range(0, len(drawn), few):
        is_over = extent.seconds is not None and time.monotonic() - began > extent.seconds
        if is_over and first >= 2 * FEWEST:
            return
        some = drawn[first : first + few]
        yield some, setup.programs(some)


def timed_networks(setup: MeasurementSetup, programs: Sequence[Program]) -> list[Timing]:
    """Time whole networks, call overhead included. Slow networks are timed in fewer rounds."""
    settings, target = setup.settings, setup.target
    quick = replace(settings, samples_per_round=1)
    first = timed(programs, target, quick, 2, setup.node)
    sample_ms = sum(max(settings.sample_ms, timing.median_ms) for timing in first)
    round_s = settings.samples_per_round * sample_ms / 1e3
    rounds = max(settings.rounds, min(settings.network_rounds, int(TIMING_S / round_s)))
    timings = timed(programs, target, settings, rounds, setup.node)
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
    """Table with a line fitted to `networks` and evaluated on `checked`."""
    parts = [net.parts_ms for net in networks if net.parts_ms is not None]
    fastest = table.parts_ms(table.fastest())
    scale, offset_ms = affine_fit(parts, [net.measured_ms for net in networks], fastest)
    errors = None
    if len(checked) >= FEWEST:
        predicted = [scale * (net.parts_ms or 0.0) + offset_ms for net in checked]
        errors = Errors.of(predicted, [net.measured_ms for net in checked])
    calibration = Calibration(
        fitted=tuple(networks), checked=tuple(checked), errors=errors, others=tuple(others)
    )
    return replace(table, scale=scale, offset_ms=offset_ms, calibration=calibration)


def refitted(table: LatencyTable, network: Architecture, measured_ms: float) -> LatencyTable:
    """Refit the table after a derived network missed its budget.

    The measurement of the network is added to the fit, and the table is then scaled to predict that
    network exactly.
    """
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
