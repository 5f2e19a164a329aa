"""Sampling strategies: baselines and earlier methods that score one network at a time.

    random      random networks within the budget; the best by supernet weights
    evolution   regularized evolution within the budget, scored by supernet weights
    rl_trials   a controller whose sampled networks are each trained for a few epochs

`random` and `evolution` do not change the supernet after the warm-up, so that scores are
comparable; each update scores one network. The controller of `rl_trials` is one softmax per site
(the alphas), where NASNet and MnasNet use a recurrent network: sites are chosen independently, as
in Proxyless-R. All workers draw the same networks and train or score them together.

`random_networks_at` draws the networks of the random-search baseline: a search has to beat the best
of some random networks of the same latency, each trained from scratch.
Source: Real et al., "Regularized Evolution" (AAAI 2019); Tan et al., "MnasNet" (CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from math import exp, isnan
from typing import Literal

import torch

from nas_core.architecture import Architecture
from nas_core.derive import best_paths
from nas_core.gates import sample_path, uniform_path
from nas_core.gradient_strategies import policy_grads
from nas_core.objective import LatencyGoal
from nas_core.progress import Evaluation
from nas_core.randomness import counted_seed, generator
from nas_core.ranking import score, scoring_batches
from nas_core.schedule import scaled_warmup_lr
from nas_core.search_settings import SearchSettings
from nas_core.settings import RetrainSettings, TrainingSettings
from nas_core.strategy import ScoredNetwork, Update, UpdateContext
from nas_core.train import (
    averaged_copy,
    evaluate,
    refresh_statistics,
    start_training,
    train_to_the_end,
)

TRIES = 100
"""Number of draws after which rejection sampling is given up."""

WINDOW = 0.95
"""Smallest fraction of a budget at which a network counts as being at that budget."""

UNITS = 2000
"""Resolution for counting networks by latency: 1 / 2000 of the difference between the budget and
the fastest network.
"""


class Random:
    """Score random networks within the budget."""

    weights: Literal["fixed"] = "fixed"

    def update(self, context: UpdateContext) -> Update:
        """Score one more random network; a new one if possible."""
        rng = context.common_rng("network")
        scored = {trial.path for trial in context.trials}
        path = random_within(context.goal, rng)
        for _ in range(TRIES):
            if tuple(path) not in scored:
                break
            path = random_within(context.goal, rng)
        return Update(trial=supernet_trial(context, path))


class Evolution:
    """Mutate the best of a few networks of the population; the oldest network is removed."""

    weights: Literal["fixed"] = "fixed"

    def update(self, context: UpdateContext) -> Update:
        """Score one child, or a random network while the population is not yet full."""
        rng, settings = context.common_rng("network"), context.settings
        population = context.trials[-settings.population :]
        if len(population) < settings.population:
            return Update(trial=supernet_trial(context, random_within(context.goal, rng)))
        candidates = torch.randperm(len(population), generator=rng)[: settings.tournament]
        parent = max((population[int(i)] for i in candidates), key=lambda trial: trial.score)
        return Update(trial=supernet_trial(context, mutated(parent.path, context.goal, rng)))


class RLTrials:
    """Train one sampled network from scratch for a few epochs; update the controller."""

    weights: Literal["alone"] = "alone"

    def update(self, context: UpdateContext) -> Update:
        """Gradient of the negative expected reward, estimated from one network."""
        probs = context.net.probs()
        path = sample_path(probs, context.common_rng("network"))
        evaluation = _train_alone(context, path)
        trial = _trial(context, path, evaluation, evaluation.top1)
        grads = policy_grads(probs, [path], [trial.score], context.baseline)
        return Update(grads, reward=trial.score, trial=trial)


def random_within(goal: LatencyGoal, rng: torch.Generator) -> list[int]:
    """A random network within the budget.

    Networks are drawn uniformly by rejection sampling. If 100 draws are all over the budget, ops
    are instead chosen site by site, in random order, among those that keep the budget feasible.
    """
    choices = [len(row) for row in goal.costs]
    for _ in range(TRIES):
        path = uniform_path(choices, rng)
        if goal.path_ms(path) <= goal.budget_ms:
            return path
    path = [row.index(min(row)) for row in goal.costs]
    for site in torch.randperm(len(path), generator=rng).tolist():
        options = [[*path[:site], j, *path[site + 1 :]] for j in range(choices[site])]
        within = [option for option in options if goal.path_ms(option) <= goal.budget_ms]
        if within:
            path = within[int(torch.randint(len(within), (1,), generator=rng))]
    return path


def random_networks_at(goal: LatencyGoal, count: int, seed: int) -> list[list[int]]:
    """Distinct random networks that take 95 to 100 % of the budget; see `random_at`.

    If the slowest network within the budget takes less than the budget, the window is 95 to 100 %
    of its latency. The first networks are the same whatever the count. There are fewer than `count`
    if 100 draws in a row yield no new network.
    """
    paths, misses, draw = dict[tuple[int, ...], None](), 0, 0
    least_ms = WINDOW * goal.path_ms(slowest_within(goal))
    while len(paths) < count and misses < TRIES:
        rng = generator(seed, "network at a latency", draw)
        path = tuple(random_at(goal, least_ms, rng))
        misses, draw = misses + 1 if path in paths else 0, draw + 1
        paths[path] = None
    return [list(path) for path in paths]


def slowest_within(goal: LatencyGoal) -> list[int]:
    """The slowest network within the budget, up to the rounding of latencies to units.

    With exact latencies no partial choice dominates another, so that all would have to be kept.

    Raises:
        ValueError: no network is within the budget.
    """
    costs = [torch.tensor(row, dtype=torch.float64) for row in goal.costs]
    units = [torch.tensor(row, dtype=torch.float64) for row in _units(goal)]
    paths = best_paths(units, costs, goal.fixed_ms, goal.budget_ms, 1)
    if not paths:
        raise ValueError(f"no network within {goal.budget_ms:g} ms on '{goal.table.hardware}'")
    return paths[0]


def random_at(goal: LatencyGoal, least_ms: float, rng: torch.Generator) -> list[int]:
    """A random network that takes between `least_ms` and the budget, drawn uniformly.

    Networks are counted by latency, rounded to 1/2000 of the difference between the budget and the
    fastest network. Ops are then drawn site by site, in proportion to the number of networks that
    they can be completed to. Networks that only rounding puts into the window are rejected and
    drawn again. If none is found, the slowest network within the budget is returned.
    """
    units, ways = _ways(goal)
    counts = ways[0].clone()
    counts[: _first_unit(goal, least_ms)] = 0
    for _ in range(TRIES if counts.any() else 0):
        path = _path_of(int(torch.multinomial(counts, 1, generator=rng)), units, ways, rng)
        if least_ms <= goal.path_ms(path) <= goal.budget_ms:
            return path
    return slowest_within(goal)


def _fastest_ms(goal: LatencyGoal) -> float:
    return goal.fixed_ms + sum(min(row) for row in goal.costs)


def _unit_ms(goal: LatencyGoal) -> float:
    room_ms = goal.budget_ms - _fastest_ms(goal)
    return room_ms / UNITS if room_ms > 0 else 1.0


def _units(goal: LatencyGoal) -> list[list[int]]:
    """Latency of every op relative to the fastest op of its site, in units."""
    unit_ms = _unit_ms(goal)
    return [[round((cost - min(row)) / unit_ms) for cost in row] for row in goal.costs]


def _first_unit(goal: LatencyGoal, least_ms: float) -> int:
    """Smallest number of units of a network that takes `least_ms`, given the rounding per site."""
    units = int((least_ms - _fastest_ms(goal)) / _unit_ms(goal)) - len(goal.costs) // 2 - 1
    return min(max(0, units), UNITS)


def _ways(goal: LatencyGoal) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Units of every op at every site, and the number of completions by latency.

    The second value has one tensor per site (and one past the last): entry n is the number of
    ways to choose the ops from that site on such that they take n units.
    """
    units, limit = _units(goal), UNITS + len(goal.costs) // 2 + 1
    ways = [torch.zeros(limit + 1, dtype=torch.float64)]
    ways[0][0] = 1.0
    for row in reversed(units):
        counts = torch.zeros_like(ways[0])
        for taken in (cost for cost in row if cost <= limit):
            counts[taken:] += ways[0][: limit + 1 - taken]
        ways.insert(0, counts)
    return units, ways


def _path_of(
    remaining: int, units: list[list[int]], ways: list[torch.Tensor], rng: torch.Generator
) -> list[int]:
    """A network that takes `left` units, drawn uniformly."""
    path = []
    for row, after in zip(units, ways[1:], strict=True):
        counts = [float(after[remaining - taken]) if taken <= remaining else 0.0 for taken in row]
        weights = torch.tensor(counts, dtype=torch.float64)
        path.append(int(torch.multinomial(weights, 1, generator=rng)))
        remaining -= row[path[-1]]
    return path


def mutated(parent: Sequence[int], goal: LatencyGoal, rng: torch.Generator) -> list[int]:
    """The parent with another op at one random site, within the budget.

    If 100 tries yield no such network, a random network within the budget.
    """
    for _ in range(TRIES):
        site = int(torch.randint(len(parent), (1,), generator=rng))
        others = [j for j in range(len(goal.costs[site])) if j != parent[site]]
        child = list(parent)
        child[site] = others[int(torch.randint(len(others), (1,), generator=rng))]
        if goal.path_ms(child) <= goal.budget_ms:
            return child
    return random_within(goal, rng)


def supernet_trial(context: UpdateContext, path: Sequence[int]) -> ScoredNetwork:
    """Score a network with supernet weights."""
    refresh, held_out = scoring_batches(context.data, context.settings)
    evaluation = score(context.net, path, refresh, held_out, context.group)
    return _trial(context, path, evaluation, quality(evaluation, context.settings))


def quality(evaluation: Evaluation, settings: SearchSettings) -> float:
    """Quality of a network with supernet weights, 0 to 1: accuracy, or exp(-cross entropy).

    0 if the cross entropy is NaN.
    """
    if settings.scored_by == "accuracy":
        return evaluation.top1
    return 0.0 if isnan(evaluation.loss) else exp(-evaluation.loss)


def _trial(
    context: UpdateContext, path: Sequence[int], evaluation: Evaluation, accuracy: float
) -> ScoredNetwork:
    goal = context.goal
    latency_ms = goal.path_ms(list(path))
    score = context.objective.reward(accuracy, latency_ms, goal.budget_ms)
    return ScoredNetwork(tuple(path), evaluation.top1, evaluation.loss, latency_ms, score)


def _train_alone(context: UpdateContext, path: Sequence[int]) -> Evaluation:
    """Train a network from scratch on the weight split, evaluate it on the architecture split."""
    search = context.settings
    recipe = RetrainSettings(
        epochs=search.trial_epochs,
        lr=search.warmup_lr or scaled_warmup_lr(search.trial_epochs * context.data.weight.steps),
        **{field.name: getattr(search, field.name) for field in fields(TrainingSettings)},
    )
    architecture = Architecture.from_path(context.goal.table.space, list(path))
    seed = counted_seed(context.seed, "trial", context.number)
    state = start_training(architecture, recipe, seed, context.goal.costs_ms[0].device)
    train_to_the_end(state, context.data.weight, recipe, seed, context.group)
    refresh, held_out = scoring_batches(context.data, context.settings)
    if search.bn_images:
        refresh_statistics(state.network, refresh)
    return evaluate(averaged_copy(state.network, context.group), held_out, context.group)
