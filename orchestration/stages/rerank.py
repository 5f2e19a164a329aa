"""Choose among the most probable networks by their score with supernet weights.

Only where the supernet was shown to rank networks well: below a Spearman of about 0.5, re-ranking
makes results worse more often than better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_core.architecture import Architecture
from nas_core.derive import k_best_within
from nas_core.latency import LatencyTable
from nas_core.progress import Evaluation
from nas_core.ranking import rerank, score, scoring_batches
from nas_core.search_settings import SearchSettings
from nas_core.workers import Team
from orchestration.stages.search import Searched


class Reranking:
    """The choice of one derivation. All workers take part in it."""

    def __init__(
        self,
        searched: Searched,
        budget_ms: float,
        settings: SearchSettings,
        ranking: Mapping[str, Any] | None,
        team: Team,
    ) -> None:
        self._searched, self._settings, self._team = searched, settings, team
        self._budget_ms = budget_ms
        self._spearman = None if ranking is None else ranking[settings.scored_by]["spearman"]
        self._scores: dict[tuple[str, ...], Evaluation] = {}
        self._candidates: Sequence[Architecture] = ()
        self._table = searched.needed_goal.table
        self.is_used, self._reason = self._decide()

    def _decide(self) -> tuple[bool, str]:
        settings, least = self._settings, self._settings.rerank_min_spearman
        if settings.rerank <= 1:
            return False, "not asked for"
        if self._searched.state.trials:
            return False, f"strategy '{settings.strategy}' takes the best network that it scored"
        if least <= 0:
            return True, f"asked for in any case (rerank_min_spearman {least:g})"
        if self._spearman is None:
            return False, "the ranking of the supernet is not known"
        is_enough = self._spearman >= least
        relation = "reaches" if is_enough else "is below"
        return is_enough, f"the supernet's Spearman of {self._spearman:.2f} {relation} {least:g}"

    def choose(self, table: LatencyTable) -> Architecture:
        """The best by supernet score of the most probable networks within the budget.

        Raises:
            BudgetError: no network is within it.
        """
        searched, settings = self._searched, self._settings
        log_probs, budget_ms = searched.state.supernet.log_probs(), self._budget_ms
        self._table = table
        self._candidates = k_best_within(log_probs, table, budget_ms, settings.rerank)
        scores = [self._score(one) for one in self._candidates]
        return rerank(self._candidates, scores, settings.scored_by)[0]

    def _score(self, architecture: Architecture) -> Evaluation:
        """A network is scored once, though derivation may run again by a corrected table."""
        if architecture.ops not in self._scores:
            net = self._searched.state.supernet
            batches = scoring_batches(self._searched.data, self._settings)
            self._scores[architecture.ops] = score(net, architecture.path(), *batches, self._team)
        return self._scores[architecture.ops]

    def facts(self) -> dict[str, Any] | None:
        """For the result: whether it was used, and why; None where nobody asked for it."""
        if self._settings.rerank <= 1:
            return None
        return {
            "k": self._settings.rerank,
            "used": self.is_used,
            "reason": self._reason,
            "spearman": self._spearman,
            "candidates": [self._candidate(one) for one in self._candidates],
        }

    def _candidate(self, architecture: Architecture) -> dict[str, Any]:
        seen = self._score(architecture)
        return {
            "ops": list(architecture.ops),
            "table_ms": self._table.latency_ms(architecture),
            "top1": seen.top1,
            "loss": seen.loss,
        }
