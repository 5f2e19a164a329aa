"""Early stopping of searches: asynchronous successive halving among seeds of the same budget.

At a few epochs, the rungs, a search reports the score of its current network and continues only if
it is among the best fraction of the scores reported at this rung so far. It does not wait for other
searches, so the first one at a rung always continues. Only cases that differ in nothing but the
seed are compared, since networks of a larger budget are better whatever the search.
Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), algorithm
2. The paper promotes a paused trial once others fall behind it; here a stopped search stays
stopped, as in Ray Tune.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cluster.storage import Storage
from orchestration.config.digest import digest
from orchestration.config.early_stopping import AshaSettings
from orchestration.config.storage_layout import RUNGS_FILE, RUNGS_FORMAT
from orchestration.planning.case import Case


class Rungs:
    """Scores of searches at each rung, and the searches that are to stop."""

    def __init__(self, settings: AshaSettings, epochs: int) -> None:
        """Start without scores.

        Args:
            settings: rungs and the fraction that continues.
            epochs: of a search after its warm-up.
        """
        self._settings, self._epochs = settings, set(settings.rungs(epochs))
        self._scores: dict[str, dict[int, dict[str, float]]] = {}
        """Scores by group, epoch and case key."""
        self.stopped: dict[str, str] = {}
        """Reasons for stopping, by case key."""

    def report(self, group: str, case_key: str, epoch: int, score: float) -> str | None:
        """Record a score. A repeated report at a rung returns the earlier decision.

        Args:
            group: equal for cases that are comparable.
            case_key: of the case.
            epoch: finished epochs after the warm-up; ignored unless it is a rung.
            score: larger is better; NaN is the worst.

        Returns:
            The reason to stop the case; None if it continues.
        """
        scores = self._scores.setdefault(group, {}).setdefault(epoch, {})
        is_new = epoch in self._epochs and case_key not in scores
        if is_new and case_key not in self.stopped:
            scores[case_key] = _number_or_worst(score)
            least = self._least(list(scores.values()))
            if scores[case_key] < least:
                self.stopped[case_key] = self._reason(epoch, score, least)
        return self.stopped.get(case_key)

    def _least(self, scores: Sequence[float]) -> float:
        """The lowest score that continues."""
        count = max(1, math.floor(len(scores) / self._settings.reduction))
        return sorted(scores, reverse=True)[count - 1]

    def _reason(self, epoch: int, score: float, least: float) -> str:
        among = f"below {least:.2f} of the {self._settings.best} at this budget"
        return f"at epoch {epoch} (score {score:.2f}, {among})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "format": RUNGS_FORMAT,
            "settings": asdict(self._settings),
            "rungs": {
                group: {
                    str(epoch): {key: _or_none(score) for key, score in scores.items()}
                    for epoch, scores in rungs.items()
                    if scores
                }
                for group, rungs in self._scores.items()
            },
            "stopped": self.stopped,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], settings: AshaSettings, epochs: int) -> Rungs:
        """The inverse of `to_dict`. Decisions under other settings are dropped, scores are kept."""
        restored = cls(settings, epochs)
        for group, scores_by_epoch in values["rungs"].items():
            restored._scores[group] = {
                int(epoch): {key: _number_or_worst(score) for key, score in scores.items()}
                for epoch, scores in scores_by_epoch.items()
            }
        if values["settings"] == asdict(settings):
            restored.stopped = dict(values["stopped"])
        return restored


def _number_or_worst(score: float | None) -> float:
    return -math.inf if score is None or math.isnan(score) else score


def _or_none(score: float) -> float | None:
    """The score for JSON, which has no infinity."""
    return None if score == -math.inf else score


def rungs_of(settings: AshaSettings, epochs: int, folder: Storage) -> Rungs:
    """The rungs of a job, with the scores in its storage."""
    values = folder.find_json(RUNGS_FILE)
    return Rungs(settings, epochs) if values is None else Rungs.from_dict(values, settings, epochs)


def group_of(case: Case) -> str:
    """Comparison group of a case: equal for cases that differ only in the seed."""
    return digest({name: part for name, part in case.parts.items() if name != "seed"})
