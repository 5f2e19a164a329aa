"""Derivation with measurement and recalibration: budgets are met, or misses are reported."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nas_core.architecture import Architecture
from nas_core.derive import BudgetError, best_within
from nas_core.latency import LatencyTable
from nas_core.space import proxyless_small
from orchestration.latency.network import Measured
from orchestration.latency.tolerance import over_budget, tolerance
from orchestration.stages.candidate import Candidate
from orchestration.stages.derive import derive_measured
from tests.support.latency_tables import by_kernel, table_of

SPACE = proxyless_small()
TABLE = table_of(SPACE, by_kernel)
PREFERENCE = {"mbconv_k7_e6": 2.0, "mbconv_k5_e6": 1.0}
PREFERS_LARGE = [
    torch.tensor([PREFERENCE.get(op, 0.0) for op in site.ops]).log_softmax(0)
    for site in SPACE.sites
]


def derived(measure: Callable[[Architecture], Measured | None]) -> Candidate:
    """The most probable network within 0.3 ms."""
    return derive_measured(
        lambda table: best_within(PREFERS_LARGE, table, 0.3), TABLE, 0.3, measure
    )


def test_a_network_that_measures_as_the_table_says_is_taken_at_once() -> None:
    result = derived(lambda a: Measured(TABLE.latency_ms(a), 0.01, 1.0))
    assert len(result.tries) == 1
    assert result.measured_ms == result.table_ms
    assert TABLE.latency_ms(result.model) <= 0.3
    assert result.measured_spread == 0.01


@pytest.mark.parametrize(("factor", "tries"), [(1.04, 1), (1.2, 2), (0.5, 1)])
def test_a_table_that_is_off_by_a_factor_is_corrected(factor: float, tries: int) -> None:
    result = derived(lambda a: Measured(factor * TABLE.latency_ms(a), 0.0, 1.0))
    assert len(result.tries) == tries
    assert result.measured_ms <= 0.3 * (1 + tolerance(0.3))
    assert result.tries[-1]["table_ms"] == result.table_ms
    assert result.tries[-1]["measured_ms"] == result.measured_ms


def test_after_two_corrections_the_miss_is_stated() -> None:
    measured = iter([0.4, 0.35, 0.33])
    result = derived(lambda _: Measured(next(measured), 0.0, 1.0))
    assert [attempt["measured_ms"] for attempt in result.tries] == [0.4, 0.35, 0.33]
    assert result.measured_ms == 0.33


def test_the_network_that_misses_least_is_kept() -> None:
    measured = iter([0.4, 0.33, 0.35])
    result = derived(lambda _: Measured(next(measured), 0.0, 1.0))
    assert result.measured_ms == 0.33
    assert len(result.tries) == 3
    note = over_budget(result.measured_ms, 0.3, len(result.tries))
    assert note is not None
    assert note.startswith("measured 0.33 ms, 10% over the budget of 0.3 ms, after 3 tries")


def test_nothing_is_said_of_what_keeps_its_budget_or_has_none() -> None:
    assert over_budget(0.31, 0.3, 1) is None  # within 5 %
    assert over_budget(None, 0.3, 1) is None
    assert over_budget(9.0, None, 1) is None


def test_a_correction_after_which_nothing_fits_keeps_the_network_that_was_measured() -> None:
    result = derived(lambda _: Measured(9.0, 0.0, 1.0))
    assert len(result.tries) == 1
    assert isinstance(result.model, Architecture)
    assert result.measured_ms == 9.0


def test_the_choice_is_made_again_by_the_corrected_table() -> None:
    tables: list[LatencyTable] = []

    def choose(table: LatencyTable) -> Architecture:
        tables.append(table)
        return best_within(PREFERS_LARGE, table, 0.3)

    derive_measured(choose, TABLE, 0.3, lambda a: Measured(1.2 * TABLE.latency_ms(a), 0.0, 1.0))
    assert [table.scale for table in tables] == pytest.approx([1.0, 1.2])


def test_where_nothing_is_measured_the_word_of_the_table_holds() -> None:
    result = derived(lambda _: None)
    assert (result.measured_ms, result.measured_spread) == (None, None)
    assert result.tries == [{"table_ms": result.table_ms, "measured_ms": None, "drift": None}]


def test_a_budget_that_nothing_meets_is_an_error() -> None:
    def choose(_: LatencyTable) -> Architecture:
        raise BudgetError("nothing")

    with pytest.raises(BudgetError):
        derive_measured(choose, TABLE, 0.001, lambda _: None)


def test_small_latencies_may_miss_by_more() -> None:
    assert (tolerance(0.5), tolerance(5.0)) == (0.05, 0.02)
