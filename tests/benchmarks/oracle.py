"""Diagnosis of a search: each part is replaced by ground truth in turn, to see which one fails.

Run `python tests/benchmarks/oracle.py` (target `cpu`, tuning seeds 0 to 4, all budgets). The ground
truth is the table of the tabular benchmark. Variants:

    as it is           two_path and reinforce, as `search_quality.py` runs them
    true derivation    the truly best of the most probable networks within the budget
    true gradients     two_path: the gate gradients are differences of the table's cross entropies
    true rewards       reinforce: rewards are the table's accuracies
    supernet's best    no search: the best by the scores of the supernet after its warm-up

If the supernet's best is far from the true best, the supernet ranks badly. If networks are bad
although gradients or rewards are true, estimator or objective fail. If the truly best of a few
probable networks is much better than the most probable one, derivation fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch

from nas_core.derive import k_best_within
from nas_core.gates import alpha_grad, sample_active, sample_pairs
from nas_core.gradient_strategies import Reinforce, TwoPath
from nas_core.search_settings import SearchSettings
from nas_core.search_state import STRATEGIES, SearchState
from nas_core.strategy import Update, UpdateContext
from tests.benchmarks import searching, tabular
from tests.benchmarks.lines import as_they_come, commit, keep
from tests.benchmarks.search_quality import SCHEDULE
from tests.benchmarks.truth import Truth, truth_of

TARGET = "cpu"
PROBABLE = 16
"""Number of most probable networks from which "true derivation" chooses."""


@cache
def known() -> tuple[Truth, dict[str, float]]:
    """Accuracies of all networks, and their mean cross entropies by name."""
    import pandas

    frame = pandas.read_parquet(tabular.place(".parquet"))
    means = frame.groupby("path")["loss"].mean()
    return truth_of(TARGET), {str(name): float(loss) for name, loss in means.items()}


def place_of(path: Sequence[int]) -> int:
    """Index of a network in the order of the ground truth."""
    return tabular.all_paths().index(tuple(path))


class TrueGradients(TwoPath):
    """Two-path updates with the losses of networks trained alone."""

    def update(self, scene: UpdateContext) -> Update:
        """Gradient from the loss of both ops of each pair, the other sites as sampled."""
        net, (_, losses) = scene.net, known()
        pairs = sample_pairs(net.probs(), scene.common_rng("pairs"))
        active = sample_active(net.alphas(), pairs, scene.own_rng("active"))
        path = [pair[a] for pair, a in zip(pairs, active, strict=True)]
        grads = []
        for site, (alpha, pair) in enumerate(zip(net.alphas(), pairs, strict=True)):
            both = [[*path[:site], op, *path[site + 1 :]] for op in pair]
            result = torch.tensor([losses[tabular.name_of(tuple(item))] for item in both])
            grad, members = torch.zeros_like(alpha), list(pair)
            grad[members] = alpha_grad(result.to(alpha.dtype), alpha.detach()[members])
            grads.append(grad)
        return Update(grads, torch.tensor(losses[tabular.name_of(tuple(path))]), pairs=pairs)


class TrueRewards(Reinforce):
    """Policy gradients with rewards from the accuracies of networks trained alone."""

    def rewards(self, scene: UpdateContext, paths: Sequence[list[int]]) -> list[float]:
        """Reward of each network."""
        means, goal = known()[0].mean(), scene.goal
        return [
            scene.objective.reward(
                float(means[place_of(path)]) / 100, goal.path_ms(path), goal.budget_ms
            )
            for path in paths
        ]


def examine(seed: int, settings: SearchSettings) -> list[dict[str, Any]]:
    """Result lines of all variants from one seed."""
    torch.set_num_threads(1)
    result = []
    for budget in range(len(tabular.BUDGET_SHARES)):
        for strategy, part, true in (
            ("two_path", "true gradients", TrueGradients),
            ("reinforce", "true rewards", TrueRewards),
        ):
            own = STRATEGIES[strategy]
            asked = replace(settings, strategy=strategy)
            for name, factory in (("as it is", own), (part, true)):
                STRATEGIES[strategy] = factory
                result += _found(asked, name, budget, seed)
            STRATEGIES[strategy] = own
        result.append(_by_supernet(settings, budget, seed))
    return result


def _found(settings: SearchSettings, part: str, budget: int, seed: int) -> list[dict[str, Any]]:
    """Result line of a search, and of the true derivation if no other part is replaced."""
    table, budgets_ms = tabular.latency(TARGET)
    state, end = searching.searched(settings, table, budgets_ms[budget], seed)
    lines = [_line(f"{settings.strategy}, {part}", budget, seed, end.path)]
    if part == "as it is":
        best = max(_probable(state, budgets_ms[budget]), key=_accuracy)
        lines.append(_line(f"{settings.strategy}, true derivation", budget, seed, best))
    return lines


def _probable(state: SearchState, budget_ms: float) -> list[tabular.Path_]:
    table, _ = tabular.latency(TARGET)
    several = k_best_within(state.supernet.log_probs(), table, budget_ms, PROBABLE)
    return [tuple(item.path()) for item in several]


def _accuracy(path: tabular.Path_) -> float:
    return float(known()[0].mean()[place_of(path)])


def _by_supernet(settings: SearchSettings, budget: int, seed: int) -> dict[str, Any]:
    _, budgets_ms = tabular.latency(TARGET)
    state = searching.warmed_up(searching.warm_up_of(settings), seed).state
    feasible = known()[0].feasible(budgets_ms[budget]).tolist()
    within = [path for path, is_in in zip(tabular.all_paths(), feasible, strict=True) if is_in]
    scores = searching.supernet_scores(state, settings, seed, within)
    best = min(zip(scores, within, strict=True), key=lambda item: item[0].loss)[1]
    return _line("supernet's best", budget, seed, best)


def _line(what: str, budget: int, seed: int, path: tabular.Path_) -> dict[str, Any]:
    budget_ms = tabular.latency(TARGET)[1][budget]
    truth, place = known()[0], place_of(path)
    return {
        "what": what,
        "budget_ms": budget_ms,
        "seed": seed,
        "path": tabular.name_of(path),
        "accuracy": float(truth.mean()[place]),
        "regret": truth.regret(place, budget_ms),
        "rank": truth.rank(place, budget_ms),
    }


def summary(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds."""
    groups: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for item in lines:
        groups.setdefault((item["budget_ms"], item["what"]), []).append(item)
    return [
        {
            "what": what,
            "budget_ms": budget_ms,
            "regret": round(fmean(item["regret"] for item in some), 2),
            "rank": round(fmean(item["rank"] for item in some), 3),
            "paths": [item["path"] for item in some],
            "commit": commit(),
        }
        for (budget_ms, what), some in sorted(groups.items())
    ]


def main() -> None:
    """Search with each part replaced; print means over seeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2, help="seeds at a time")
    parser.add_argument("--set", type=json.loads, default={}, help="settings of a search, as JSON")
    options = parser.parse_args()
    settings = replace(SCHEDULE, **options.set)
    jobs = [(seed, settings) for seed in range(options.seeds)]
    runs = as_they_come(examine, jobs, options.processes)
    keep("oracle", summary([line for lines in runs for line in lines]))


if __name__ == "__main__":
    main()
