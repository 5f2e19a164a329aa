"""Stage: from a finished search to a network that was measured within its budget.

The derivation is exact on the table; then the whole network is measured on the target. If it misses
the budget, the measurement joins the calibration of the table, which is made to pass through it,
and derivation runs again, at most twice. Where
the supernet was shown to rank networks well, it chooses among the most probable ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from nas_core.architecture import Architecture
from nas_core.derive import BudgetError
from nas_core.latency import LatencyTable
from nas_core.search import alphas_digest, choose, latency_note, weights_digest
from nas_core.search_settings import SearchSettings
from nas_core.search_state import STRATEGIES
from nas_core.strategy import Trial
from orchestration.distributed.process_group import report_note
from orchestration.latency.calibrate import refitted
from orchestration.latency.network import Measured
from orchestration.planning.budgets import is_within, over_budget
from orchestration.stages.candidate import Found, measured_together, tried
from orchestration.stages.rerank import Reranking
from orchestration.stages.search import Searched
from orchestration.stages.supernet_ranking import measured_ranking
from orchestration.stages.worker import Crew

CORRECTIONS = 2

SHOWN_TRIALS = 5
"""Of the networks that a search scored, how many stand in its result."""


def derive(crew: Crew, searched: Searched) -> Found:
    """The best network within the budget of the case, measured on its target.

    All workers take part: the first measures, all score.
    """
    settings, budget_ms = crew.work.job.search, crew.work.case.budget_ms
    assert budget_ms is not None, "a searched case has a budget"
    facts = search_facts(searched, settings)
    for note in facts["notes"]:
        report_note(note)
    weights = weights_digest(searched.state.supernet)
    crew.team.agree("the weights of the supernet", weights)
    ranking = measured_ranking(crew, searched)
    reranking = Reranking(searched, budget_ms, settings, ranking, crew.team)

    def chosen(table: LatencyTable) -> Architecture:
        if reranking.is_used:
            return reranking.choose(table)
        return choose(searched.state, table, budget_ms, settings)

    found = derive_measured(
        chosen, crew.table, budget_ms, lambda model: measured_together(crew, model, budget_ms)
    )
    missed = over_budget(found.measured_ms, budget_ms, len(found.tries))
    if missed is not None:
        report_note(missed)
    return replace(
        found,
        history=searched.history,
        alphas=crew.team.gather(alphas_digest(searched.state.supernet)),
        search={
            **facts,
            "supernet_weights": weights,
            "ranking": ranking,
            "rerank": reranking.facts(),
        },
    )


def derive_measured(
    choose: Callable[[LatencyTable], Architecture],
    table: LatencyTable,
    budget_ms: float,
    measure: Callable[[Architecture], Measured | None],
) -> Found:
    """Derive, measure and correct.

    Args:
        choose: the best network within the budget by a table; raises BudgetError if there is none.
        table: latencies of the space on the target.
        budget_ms: largest latency allowed.
        measure: latency of a whole network; None where nothing is measured: the table's word holds.

    Returns:
        The network that keeps the budget; if none does even by a corrected table, or nothing fits
        by it any more, the one that misses it least. With all tries.
    """
    tries: list[dict[str, float | None]] = []
    measured_so_far: list[Found] = []
    architecture = choose(table)
    while True:
        measured, table_ms = measure(architecture), table.latency_ms(architecture)
        tries.append(tried(table_ms, measured))
        if measured is None:
            return Found(architecture, table_ms, None, None, tries)
        measured_so_far.append(Found(architecture, table_ms, measured.ms, measured.spread, tries))
        if is_within(measured.ms, budget_ms) or len(tries) > CORRECTIONS:
            return min(measured_so_far, key=lambda one: one.measured_ms or 0.0)
        table = refitted(table, architecture, measured.ms)
        try:
            architecture = choose(table)
        except BudgetError:
            return min(measured_so_far, key=lambda one: one.measured_ms or 0.0)


def search_facts(searched: Searched, settings: SearchSettings) -> dict[str, Any]:
    """What a search says of its end: notes, expected latency, the networks that it scored."""
    state, goal = searched.state, searched.needed_goal
    note = latency_note(state, goal, settings)
    is_learnt = STRATEGIES[settings.strategy]().weights != "fixed"
    expected_ms = float(goal.expected_ms(state.supernet.probs())) if is_learnt else None
    return {
        "notes": searched.notes + ([] if note is None else [note]),
        "expected_ms": expected_ms,
        "trials": _trials(state.trials, searched),
    }


def _trials(trials: list[Trial], searched: Searched) -> dict[str, Any] | None:
    """Their number and the best few; None for strategies that score none."""
    if not trials:
        return None
    best = sorted(trials, key=lambda trial: -trial.score)[:SHOWN_TRIALS]
    space = searched.needed_goal.table.space
    return {
        "number": len(trials),
        "best": [
            {**asdict(trial), "ops": list(Architecture.from_path(space, list(trial.path)).ops)}
            for trial in best
        ],
    }
