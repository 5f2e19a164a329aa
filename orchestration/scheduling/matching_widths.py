"""Matched-width baselines: for each search, the MobileNetV2 width of the nearest latency.

Bisection measures few widths, since latency grows with width. Latencies are stored next to the
latency table of the target, so that a finished job derives the same cases without measuring.
Targets that cannot be measured have no such baseline.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from cluster.hardware import Target
from cluster.runtimes.base import MeasurementError
from cluster.storage import Storage
from nas_core.baselines.registry import Baseline, for_space
from nas_core.latency import LatencyTable
from nas_core.space import SearchSpace
from orchestration.config.cases import CaseSettings
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import WIDTHS_FORMAT, table_widths_file
from orchestration.planning.case import Case, NamedCase, SearchCase
from orchestration.planning.cases import named_case
from orchestration.planning.plan import Plan

WIDTHS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4)

Tables = Mapping[str, LatencyTable]
Clock = Callable[[float], float]
"""Function from a width of MobileNetV2 to its latency in milliseconds."""


def nearest_width(budget_ms: float, latency_ms: Clock) -> float:
    """The width whose latency is nearest to the budget by ratio; of two, the narrower one.

    Args:
        budget_ms: latency to match.
        latency_ms: increasing function of the width; called for three or four of the eight widths.
    """
    above = bisect_left(WIDTHS, budget_ms, key=latency_ms)
    around = WIDTHS[max(0, above - 1) : above + 1]
    return min(around, key=lambda width: abs(math.log(latency_ms(width) / budget_ms)))


def width_name(width: float) -> str:
    """Name of the baseline of this width."""
    return "mobilenet_v2" if width == 1 else f"mobilenet_v2_{width:g}"


class MatchedWidths:
    """Latencies of MobileNetV2 by width on one target, persisted in storage."""

    def __init__(self, storage: Storage, key: str, table: LatencyTable) -> None:
        """Read stored latencies.

        Args:
            storage: of all jobs.
            key: of the table.
            table: of the target; stored latencies are ignored if its reference latency has changed.
        """
        self._storage, self._path = storage, table_widths_file(key)
        self._reference_ms = table.reference_ms
        self._ms: dict[float, float] = self._read()

    def nearest(self, budget_ms: float) -> float | None:
        """The width nearest to a budget; None if a latency needed to tell is not measured."""
        try:
            return nearest_width(budget_ms, self._ms.__getitem__)
        except KeyError:
            return None

    def measure(self, budget_ms: float, clock: Clock) -> None:
        """Measure and store the latencies needed to determine the width nearest to a budget."""

        def latency_ms(width: float) -> float:
            if width not in self._ms:
                self._ms[width] = clock(width)
                self._write()
            return self._ms[width]

        nearest_width(budget_ms, latency_ms)

    def _read(self) -> dict[float, float]:
        values = self._storage.find_json(self._path) or {}
        if values.get("format") != WIDTHS_FORMAT or values["reference_ms"] != self._reference_ms:
            return {}
        return {entry["width"]: entry["ms"] for entry in values["widths"]}

    def _write(self) -> None:
        widths = [{"width": width, "ms": ms} for width, ms in sorted(self._ms.items())]
        values = {"format": WIDTHS_FORMAT, "reference_ms": self._reference_ms, "widths": widths}
        self._storage.write_json(self._path, values)


def matched_width_cases(
    plan: Plan, cases: Sequence[Case], tables: Tables, storage: Storage
) -> list[Case]:
    """Cases of the matched-width baseline of each search, as far as the widths are known.

    Budgets may share a width. Baselines that the job names itself are left out.

    Args:
        plan: of the job; without `controls` there are no such cases.
        cases: of the job.
        tables: by target, for all targets of searches.
        storage: of all jobs.
    """
    controls, names = dict[str, Case](), {case.name for case in cases}
    for case, width in _nearest(plan, cases, tables, storage):
        if width is not None:
            control = _width_case(plan, case, width)
            controls[control.name] = control
    return [case for name, case in controls.items() if name not in names]


def are_matched_widths_known(
    plan: Plan, cases: Sequence[Case], tables: Tables, storage: Storage
) -> bool:
    """Whether `matched_width_cases` is complete, i.e. all widths are known."""
    return all(width is not None for _, width in _nearest(plan, cases, tables, storage))


def measure_widths(
    plan: Plan,
    cases: Sequence[Case],
    tables: Tables,
    storage: Storage,
    log: Callable[[str], None],
) -> None:
    """Measure the latencies needed to determine the width for each search.

    Args:
        plan: of the job.
        cases: of the job.
        tables: by target.
        storage: of all jobs; measurements are stored there.
        log: called with each progress line.

    Raises:
        SpecError: a target cannot be measured; earlier measurements stay stored.
    """
    for target in plan.targets:
        unknown = [
            case.budget_ms
            for case, width in _nearest(plan, cases, tables, storage)
            if case.target == target.name and width is None
        ]
        if unknown:
            table = tables[target.name]
            widths = MatchedWidths(storage, plan.table_keys[target.name], table)
            _measure(widths, unknown, plan, target, table, log)


def _measure(
    widths: MatchedWidths,
    budgets_ms: Sequence[float],
    plan: Plan,
    target: Target,
    table: LatencyTable,
    log: Callable[[str], None],
) -> None:
    try:
        with clock_of(plan, target, table, log) as clock:
            for budget_ms in budgets_ms:
                widths.measure(budget_ms, clock)
    except MeasurementError as error:
        raise SpecError(str(error)) from None


@contextmanager
def clock_of(
    plan: Plan, target: Target, table: LatencyTable, log: Callable[[str], None]
) -> Iterator[Clock]:
    """Context manager with a clock for MobileNetV2; nothing trains on the node inside the block."""
    from cluster.placement import cores_reserved
    from orchestration.latency.device import node_of
    from orchestration.latency.network import measure_network
    from orchestration.programs.compile_workers import compile_workers_running

    def latency_ms(width: float) -> float:
        model = _model(width, plan.space)
        ms = measure_network(model, table, target, plan.job.measure).ms
        log(f"measure  {model.name} on {target.hardware()}: {ms:.4g} ms")
        return ms

    node = node_of(table, target)
    with compile_workers_running([node]), cores_reserved(node, log):
        yield latency_ms


def _nearest(
    plan: Plan, cases: Sequence[Case], tables: Tables, storage: Storage
) -> Iterator[tuple[SearchCase, float | None]]:
    """Searches on targets that can be measured, each with its width or None if unknown."""
    measured = {target.name for target in plan.targets if target.is_measured}
    for case in cases if plan.job.controls else ():
        if case.target in measured and isinstance(case, SearchCase):
            widths = MatchedWidths(storage, case.table_key, tables[case.target])
            yield case, widths.nearest(case.budget_ms)


def _width_case(plan: Plan, search: SearchCase, width: float) -> NamedCase:
    settings = CaseSettings(target=search.target, baseline=width_name(width))
    own = replace(plan, job=plan.job.with_seed(search.seed))
    return named_case(own, settings, _model(width, plan.space))


def _model(width: float, space: SearchSpace) -> Baseline:
    return for_space(width_name(width), space)
