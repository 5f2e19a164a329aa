"""Which searches end early: asynchronous successive halving among seeds of the same budget.

At a few epochs, the rungs, a search says how good its network would be by then, and goes on only if
that is among the best share of those that were at this rung before it. Nobody waits for others, so
the first at a rung always goes on. Only cases that differ in nothing but the seed are compared:
networks of a larger budget are better, and that says nothing of the search.
Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), algorithm
2. Theirs promotes a paused trial once others fall behind it; here a search ends and stays ended, as
in Ray Tune.
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
from orchestration.planning.cases import Case


class Rungs:
    """What searches scored at each rung, and which of them are to end."""

    def __init__(self, settings: AshaSettings, epochs: int) -> None:
        """Nothing is recorded yet.

        Args:
            settings: when, and how many go on.
            epochs: of a search, behind its warm-up.
        """
        self._settings, self._epochs = settings, set(settings.rungs(epochs))
        self._scores: dict[str, dict[int, dict[str, float]]] = {}
        """By group, epoch and case."""
        self.stopped: dict[str, str] = {}
        """By key of a case that is to end, why."""

    def report(self, group: str, case_key: str, epoch: int, score: float) -> str | None:
        """Record a score, once; whoever comes back to a rung hears what was said there before.

        Args:
            group: cases that may be compared have the same.
            case_key: of the case.
            epoch: finished epochs behind the warm-up; others than rungs are not recorded.
            score: the larger the better; not a number is the worst.

        Returns:
            Why the case is to end; None if it goes on.
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
        """The score with which one goes on."""
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
        """The inverse. What was decided under other settings is decided anew: scores stay true."""
        found = cls(settings, epochs)
        for group, rungs in values["rungs"].items():
            found._scores[group] = {
                int(epoch): {key: _number_or_worst(score) for key, score in scores.items()}
                for epoch, scores in rungs.items()
            }
        if values["settings"] == asdict(settings):
            found.stopped = dict(values["stopped"])
        return found


def _number_or_worst(score: float | None) -> float:
    return -math.inf if score is None or math.isnan(score) else score


def _or_none(score: float) -> float | None:
    """JSON has no infinity."""
    return None if score == -math.inf else score


def rungs_of(settings: AshaSettings, epochs: int, folder: Storage) -> Rungs:
    """Those of a job, with what its storage remembers."""
    values = folder.find_json(RUNGS_FILE)
    return Rungs(settings, epochs) if values is None else Rungs.from_dict(values, settings, epochs)


def group_of(case: Case) -> str:
    """Equal for cases that differ in nothing but the seed."""
    return digest({name: part for name, part in case.parts.items() if name != "seed"})
