"""Quality of the networks that searches find, by the committed table of a small space.

Run `python tests/benchmarks/search_quality.py` for one budget on `cpu` and three seeds (10 minutes
on two cores), with `--all` for every strategy and objective, three budgets, five seeds and the
second target. Every search is kept as a JSON line; a second start runs what is missing.

Searches see the latency table and the training images, never the table of accuracies. The networks
that they find are then looked up in it. They are compared with controls that need no search:

    random        mean of the networks that take 0.9 to 1.0 of the budget
    best of N     best of as many random feasible networks as could be trained for the cost of the
                  search, chosen on one seed and scored on the others
    most MACs, slowest, best uniform chain    among the feasible networks
    random selection    by the supernet of the same seed, among as many random networks as there
                        are updates (strategy `random`)

Differences are paired by seed, with Student's 95 % interval.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch

from nas_core.progress import Evaluation
from nas_core.ranking import kendall, ranking_paths, spearman
from nas_core.search_settings import SearchSettings
from nas_core.search_state import STRATEGIES, SearchState
from tests.benchmarks import searching, tabular
from tests.benchmarks.lines import as_they_come, commit, keep, line, results_file
from tests.benchmarks.truth import Truth, paired, truth_of

SCHEDULE = SearchSettings(
    batch_size=64,
    architecture_share=0.2,
    warmup_epochs=16,
    warmup_lr=0.1,
    epochs=8,
    scored_by="cross_entropy",
)
"""Search settings that differ from the defaults: lengths for this data set, and the learning rate
for a warm-up of only 1,600 steps. Twice the length at half the rate found the same networks."""
RANKED = 60
"""Number of networks on which the ranking of the supernet is compared with the ground truth."""
TRAINING_STEPS = tabular.RECIPE.epochs * -(-tabular.DATA.glyphs.train // tabular.RECIPE.batch_size)
"""Weight steps of a network trained alone."""


@dataclass(frozen=True)
class Job:
    """A search on a target within one of its budgets, from a seed."""

    target: str
    budget: int
    seed: int
    settings: SearchSettings = field(default_factory=lambda: SCHEDULE)
    is_ranked: bool = True
    """Whether the ranking of networks by the supernet is evaluated at the end."""

    def key(self) -> str:
        """Key that is equal for equal searches on the same tabular benchmark."""
        values = {**asdict(self), "settings": self.settings.outcome_facts()}
        if values["is_ranked"]:  # keeps the keys of searches made before this field existed
            del values["is_ranked"]
        text = json.dumps([values, tabular.digest()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def run(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Result lines of searches that share seed and warm-up, run one after the other."""
    torch.set_num_threads(1)
    return [_run(job) for job in jobs]


def _run(job: Job) -> dict[str, Any]:
    table, budgets_ms = tabular.latency(job.target)
    state, result = searching.searched(job.settings, table, budgets_ms[job.budget], job.seed)
    most_probable = tuple(int(p.argmax()) for p in state.supernet.probs())
    return {
        "key": job.key(),
        "target": job.target,
        "budget_ms": budgets_ms[job.budget],
        "seed": job.seed,
        "strategy": job.settings.strategy,
        "objective": job.settings.objective_name,
        "path": tabular.name_of(result.path),
        "table_ms": result.table_ms,
        "expected_ms": result.expected_ms,
        "argmax": tabular.name_of(most_probable),
        "argmax_ms": table.latency_ms(tabular.network_of(most_probable)),
        "cost": round(result.cost),
        "scores": _scores(state, job),
        "settings": asdict(job.settings),
        "commit": commit(),
    }


def _scores(state: SearchState, job: Job) -> list[tuple[float, float]]:
    """Accuracy and cross entropy of the ranked networks with supernet weights."""
    weights = STRATEGIES[job.settings.strategy]().weights
    if weights == "alone" or not job.is_ranked:
        return []
    if weights == "fixed":
        return _scores_after_warm_up(job.settings, job.seed)
    return _rounded(searching.supernet_scores(state, job.settings, job.seed, ranked_paths()))


@cache
def _scores_after_warm_up(settings: SearchSettings, seed: int) -> list[tuple[float, float]]:
    """Scores by a supernet that the search does not train; the same for all budgets."""
    state = searching.warmed_up(searching.warm_up_of(settings), seed).state
    return _rounded(searching.supernet_scores(state, settings, seed, ranked_paths()))


def _rounded(scores: Iterable[Evaluation]) -> list[tuple[float, float]]:
    return [(round(score.top1, 4), round(score.loss, 4)) for score in scores]


def ranked_paths() -> list[tabular.Path_]:
    """Networks to rank, drawn uniformly."""
    return ranking_paths(tabular.SPACE, RANKED, seed=0)


def jobs_of(target: str, seeds: Iterable[int], settings: Sequence[SearchSettings]) -> list[Job]:
    """Jobs of all settings with all seeds and budgets."""
    budgets = range(len(tabular.BUDGET_SHARES))
    return [
        Job(target, b, seed, setting) for seed in seeds for setting in settings for b in budgets
    ]


def run_missing(jobs: Sequence[Job], processes: int, file: Path) -> list[dict[str, Any]]:
    """Result lines of all jobs; those missing in `file` are run, some seeds at a time."""
    done = _kept(file)
    missing = [job for job in jobs if job.key() not in done]
    groups: dict[object, list[Job]] = {}
    for job in missing:
        groups.setdefault((job.seed, searching.warm_up_of(job.settings)), []).append(job)
    runs = as_they_come(run, [(group,) for group in groups.values()], processes)
    for number, lines in enumerate(runs, start=1):
        with file.open("a") as out:
            out.writelines(json.dumps(result) + "\n" for result in lines)
        print(f"{number} of {len(groups)} warm-ups and their searches", file=sys.stderr)
    done = _kept(file)
    return [done[job.key()] for job in jobs]


def _kept(file: Path) -> dict[str, dict[str, Any]]:
    texts = file.read_text().splitlines() if file.exists() else []
    return {result["key"]: result for result in map(json.loads, texts)}


def controls(truth: Truth, budget_ms: float, cost: float) -> dict[str, float]:
    """Accuracies that can be had without a search."""
    feasible, means = truth.feasible(budget_ms).nonzero().flatten(), truth.mean()
    macs = torch.tensor(_all_macs())
    uniform = [i for i, path in enumerate(tabular.all_paths()) if _is_uniform(path)]
    return {
        "random": float(means[truth.near(budget_ms)].mean()),
        "best of N": truth.best_of(max(1, round(cost / TRAINING_STEPS)), budget_ms),
        "most MACs": float(means[feasible[macs[feasible].argmax()]]),
        "slowest": float(means[feasible[truth.latency_ms[feasible].argmax()]]),
        "uniform": max(
            (float(means[i]) for i in uniform if truth.feasible(budget_ms)[i]), default=float("nan")
        ),
    }


@cache
def _all_macs() -> list[int]:
    return [tabular.network_of(path).macs() for path in tabular.all_paths()]


def _is_uniform(path: tabular.Path_) -> bool:
    """Whether all sites have the same op."""
    return len(set(tabular.network_of(path).ops)) == 1


def summary(
    lines: Sequence[dict[str, Any]], truth: Truth, others: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Summary of the searches with one strategy, objective and budget over seeds.

    Args:
        lines: result lines of these searches.
        truth: ground truth of the networks on their target.
        others: lines of all searches; those with strategy `random` from the same supernets serve as
            a control.
    """
    budget_ms = lines[0]["budget_ms"]
    places = [tabular.names().index(item["path"]) for item in lines]
    accuracy = _accuracies(lines, truth)
    cost = fmean(item["cost"] for item in lines)
    aside = controls(truth, budget_ms, cost)
    return {
        "what": "{strategy}, {objective}, {target}, {budget_ms:g} ms".format(**lines[0]),
        "accuracy": round(fmean(accuracy), 2),
        "deviation": round(stdev(accuracy), 2) if len(accuracy) > 1 else None,
        "seeds": [item["seed"] for item in lines],
        "regret": round(fmean(truth.regret(i, budget_ms) for i in places), 2),
        "median rank": round(median(truth.rank(i, budget_ms) for i in places), 3),
        "rank ceiling": round(truth.first(2).rank_ceiling(budget_ms), 3),
        "of the budget": round(max(item["table_ms"] for item in lines) / budget_ms, 3),
        "measured": round(max(_measured_ms(item) for item in lines) / budget_ms, 3),
        "cost": round(cost),
        "controls": {name: round(value, 2) for name, value in aside.items()},
        "gain": {name: _gain(accuracy, [value]) for name, value in aside.items()}
        | _gain_by_seed(lines, truth, others),
        **_ranking(lines, truth),
    }


def _accuracies(lines: Iterable[dict[str, Any]], truth: Truth) -> list[float]:
    means, names = truth.mean(), tabular.names()
    return [float(means[names.index(item["path"])]) for item in lines]


def _measured_ms(item: dict[str, Any]) -> float:
    """Latency of the whole network of a search, from the run that measured all interleaved."""
    return tabular.measured_ms(item["target"])[item["path"]]


def _gain(accuracy: Sequence[float], control: Sequence[float]) -> list[float]:
    """Mean difference and its interval; one value of a control stands for all seeds."""
    by_seed = control if len(control) > 1 else list(control) * len(accuracy)
    away = [item - other for item, other in zip(accuracy, by_seed, strict=True)]
    if len(away) < 2:
        return [round(away[0], 2)]
    result = paired(away)
    return [round(value, 2) for value in (result.mean, result.low, result.high)]


def _gain_by_seed(
    lines: Sequence[dict[str, Any]], truth: Truth, others: Sequence[dict[str, Any]]
) -> dict[str, list[float]]:
    """Gain over random selection from the supernet of the same seed, if that was run."""
    where = {"target": lines[0]["target"], "budget_ms": lines[0]["budget_ms"]}
    random = {
        item["seed"]: item
        for item in others
        if item["strategy"] == "random" and where.items() <= item.items()
    }
    if lines[0]["strategy"] == "random" or any(item["seed"] not in random for item in lines):
        return {}
    same = [random[item["seed"]] for item in lines]
    return {"random selection": _gain(_accuracies(lines, truth), _accuracies(same, truth))}


def _ranking(lines: Sequence[dict[str, Any]], truth: Truth) -> dict[str, Any]:
    """Rank correlations of the final supernets with the ground truth, and their ceiling."""
    if not lines[0]["scores"]:
        return {}
    places = [tabular.all_paths().index(path) for path in ranked_paths()]
    alone = truth.first(2).accuracy[places]
    both, r = alone.mean(1).tolist(), spearman(*alone.T.tolist())
    by_loss = [[-loss for _, loss in item["scores"]] for item in lines]
    by_accuracy = [[top1 for top1, _ in item["scores"]] for item in lines]
    return {
        "Spearman": round(fmean(spearman(said, both) for said in by_loss), 3),
        "Kendall": round(fmean(kendall(said, both) for said in by_loss), 3),
        "Spearman by accuracy": round(fmean(spearman(said, both) for said in by_accuracy), 3),
        "Spearman ceiling": round((2 * r / (1 + r)) ** 0.5, 3),
    }


def grouped(lines: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Groups of lines that differ in their seed alone."""
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for item in lines:
        what = (item["target"], json.dumps(item["settings"]), item["budget_ms"])
        groups.setdefault(what, []).append(item)
    return list(groups.values())


STRATEGY_SETTINGS = [
    replace(SCHEDULE, strategy=name)
    for name in ("two_path", "reinforce", "full_path", "darts", "random", "evolution", "rl_trials")
]
OBJECTIVE_SETTINGS = [
    replace(SCHEDULE, objective=name) for name in ("none", "add_linear", "absolute", "power")
]
"""Objectives other than `learnt`, the default; `mul_log` is refused below a millisecond."""


def main() -> None:
    """Run the searches, look up their networks and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="everything, on fresh seeds")
    parser.add_argument("--processes", type=int, default=2, help="seeds at a time")
    options = parser.parse_args()
    if options.all:
        jobs = jobs_of("cpu", range(10, 15), [*STRATEGY_SETTINGS, *OBJECTIVE_SETTINGS])
        jobs += jobs_of("mobile", range(10, 15), STRATEGY_SETTINGS[:2])
    else:
        some = jobs_of("cpu", range(10, 13), [*STRATEGY_SETTINGS[:2], STRATEGY_SETTINGS[4]])
        jobs = [job for job in some if job.budget == 1]
    lines = run_missing(jobs, options.processes, results_file("search_quality_runs"))
    result = [summary(some, truth_of(some[0]["target"]), lines) for some in grouped(lines)]
    device = line("", [0.0])["device"]
    keep("search_quality", [{**item, "device": device, "commit": commit()} for item in result])


if __name__ == "__main__":
    main()
