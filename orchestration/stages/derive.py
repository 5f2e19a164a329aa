"""Stage: derive a network from a finished search and measure that it meets the budget.

The derivation is exact on the table; then the whole network is measured on the target. If it misses
the budget, the table is recalibrated so that it reproduces the measurement, and the derivation is
repeated, at most twice. If the supernet has been shown to rank networks well, its scores choose
among the most probable networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from nas_core.architecture import Architecture
from nas_core.derive import BudgetError, k_best_within
from nas_core.latency import LatencyTable
from nas_core.progress import Evaluation
from nas_core.ranking import rerank, score, scoring_batches
from nas_core.search import alphas_digest, choose, latency_note, weights_digest
from nas_core.search_settings import SearchSettings
from nas_core.search_state import STRATEGIES
from nas_core.strategy import ScoredNetwork
from nas_core.workers import ProcessGroup
from orchestration.latency.calibrate import refitted
from orchestration.latency.network import Measured
from orchestration.latency.tolerance import is_within, over_budget
from orchestration.stages.candidate import Candidate, measured_together, tried
from orchestration.stages.context import WorkerContext
from orchestration.stages.search import Searched
from orchestration.stages.supernet_ranking import measured_ranking
from orchestration.state.result import SearchFacts

CORRECTIONS = 2

SHOWN_TRIALS = 5
"""Number of scored networks of a search that are listed in its result."""


def derive(context: WorkerContext, searched: Searched) -> Candidate:
    """Derive the best network within the budget of the case and measure it on the target.

    Called by all workers: the first one measures, all of them score.
    """
    settings, budget_ms = context.task.job.search, context.search_case.budget_ms
    facts = search_facts(searched, settings)
    for note in facts["notes"]:
        context.report({"note": note})
    weights = weights_digest(searched.state.supernet)
    context.group.agree("the weights of the supernet", weights)
    ranking = measured_ranking(context, searched)
    reranking = Reranking(searched, budget_ms, settings, ranking, context.group)

    def chosen(table: LatencyTable) -> Architecture:
        if reranking.is_used:
            return reranking.choose(table)
        return choose(searched.state, table, budget_ms, settings)

    candidate = derive_measured(
        chosen, context.table, budget_ms, lambda model: measured_together(context, model, budget_ms)
    )
    missed = over_budget(candidate.measured_ms, budget_ms, len(candidate.tries))
    if missed is not None:
        context.report({"note": missed})
    return replace(
        candidate,
        history=searched.history,
        alphas=context.group.gather(alphas_digest(searched.state.supernet)),
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
) -> Candidate:
    """Derive, measure, recalibrate and repeat until the budget is met.

    Args:
        choose: returns the best network within the budget by a table, or raises BudgetError.
        table: latencies of the space on the target.
        budget_ms: largest latency allowed.
        measure: returns the latency of a whole network, or None if the target is not measured and
            the latency by the table counts.

    Returns:
        A network within the budget, with all tries. If no try is, or no network is within the
        budget by the recalibrated table, the fastest network that was tried.
    """
    tries: list[dict[str, float | None]] = []
    measured_so_far: list[Candidate] = []
    architecture = choose(table)
    while True:
        measured, table_ms = measure(architecture), table.latency_ms(architecture)
        tries.append(tried(table_ms, measured))
        if measured is None:
            return Candidate(architecture, table_ms, None, None, tries)
        measured_so_far.append(
            Candidate(architecture, table_ms, measured.ms, measured.spread, tries)
        )
        if is_within(measured.ms, budget_ms) or len(tries) > CORRECTIONS:
            return min(measured_so_far, key=lambda candidate: candidate.measured_ms or 0.0)
        table = refitted(table, architecture, measured.ms)
        try:
            architecture = choose(table)
        except BudgetError:
            return min(measured_so_far, key=lambda candidate: candidate.measured_ms or 0.0)


def search_facts(searched: Searched, settings: SearchSettings) -> SearchFacts:
    """Facts about a search for the result: notes, expected latency, scored networks."""
    state, goal = searched.state, searched.needed_goal
    note = latency_note(state, goal, settings)
    is_learnt = STRATEGIES[settings.strategy]().weights != "fixed"
    expected_ms = float(goal.expected_ms(state.supernet.probs())) if is_learnt else None
    return {
        "notes": searched.notes + ([] if note is None else [note]),
        "expected_ms": expected_ms,
        "trials": _trials(state.trials, searched),
    }


def _trials(trials: list[ScoredNetwork], searched: Searched) -> dict[str, Any] | None:
    """Number of scored networks and the best of them; None for strategies that score none."""
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


class Reranking:
    """Choice among the most probable networks by supernet score. Used by all workers together."""

    def __init__(
        self,
        searched: Searched,
        budget_ms: float,
        settings: SearchSettings,
        ranking: Mapping[str, Any] | None,
        group: ProcessGroup,
    ) -> None:
        self._searched, self._settings, self._group = searched, settings, group
        self._budget_ms = budget_ms
        self._spearman = None if ranking is None else ranking[settings.scored_by]["spearman"]
        self._scores: dict[tuple[str, ...], Evaluation] = {}
        self._candidates: Sequence[Architecture] = ()
        self._table = searched.needed_goal.table
        self.is_used, self._reason = self._decide()

    def _decide(self) -> tuple[bool, str]:
        settings, least = self._settings, self._settings.rerank_min_spearman
        if settings.rerank <= 1:
            return False, "not requested"
        if self._searched.state.trials:
            return False, f"strategy '{settings.strategy}' takes the best network it scored"
        if least <= 0:
            return True, f"requested unconditionally (rerank_min_spearman {least:g})"
        if self._spearman is None:
            return False, "the rank correlation of the supernet is not known"
        is_enough = self._spearman >= least
        relation = "reaches" if is_enough else "is below"
        return is_enough, f"the supernet's Spearman of {self._spearman:.2f} {relation} {least:g}"

    def choose(self, table: LatencyTable) -> Architecture:
        """The network of the best supernet score among the most probable ones within the budget.

        Raises:
            BudgetError: no network is within the budget.
        """
        searched, settings = self._searched, self._settings
        log_probs, budget_ms = searched.state.supernet.log_probs(), self._budget_ms
        self._table = table
        self._candidates = k_best_within(log_probs, table, budget_ms, settings.rerank)
        scores = [self._score(candidate) for candidate in self._candidates]
        return rerank(self._candidates, scores, settings.scored_by)[0]

    def _score(self, architecture: Architecture) -> Evaluation:
        """Supernet score of a network, cached for repeated derivations."""
        if architecture.ops not in self._scores:
            net = self._searched.state.supernet
            batches = scoring_batches(self._searched.data, self._settings)
            self._scores[architecture.ops] = score(net, architecture.path(), *batches, self._group)
        return self._scores[architecture.ops]

    def facts(self) -> dict[str, Any] | None:
        """Facts for the result: whether reranking was used, and why; None if it is off."""
        if self._settings.rerank <= 1:
            return None
        return {
            "k": self._settings.rerank,
            "used": self.is_used,
            "reason": self._reason,
            "spearman": self._spearman,
            "candidates": [self._candidate(candidate) for candidate in self._candidates],
        }

    def _candidate(self, architecture: Architecture) -> dict[str, Any]:
        evaluation = self._score(architecture)
        return {
            "ops": list(architecture.ops),
            "table_ms": self._table.latency_ms(architecture),
            "top1": evaluation.top1,
            "loss": evaluation.loss,
        }
