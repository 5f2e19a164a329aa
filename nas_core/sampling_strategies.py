"""Controls and earlier systems: strategies that only compare networks, each by itself.

    random      random networks within the budget; the best by supernet weights
    evolution   regularized evolution within the budget, scored by supernet weights
    rl_trials   a controller whose sampled networks are each trained for a few epochs

`random` and `evolution` leave the supernet as the warm-up left it, so that scores are comparable;
an update scores one network. The controller of `rl_trials` is one softmax per site (the alphas),
where NASNet and MnasNet have a recurrent network: the sites are chosen independently, as by
Proxyless-R. All workers draw the same networks and train or score them together.

A search has to beat the best of some random networks that take as long as its own, each trained
alone: `random_networks_at` draws them.
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
"""Draws that may be over the budget, or were scored before, until another way is taken."""

WINDOW = 0.95
"""Networks that take this part of a budget, or more, are at the latency of that budget."""

UNITS = 2000
"""Latencies are rounded to this part of the budget, less the fastest network, to count the networks
that have them."""


class Random:
    """Score random networks within the budget."""

    weights: Literal["fixed"] = "fixed"

    def update(self, scene: UpdateContext) -> Update:
        """Score one more, new if the space has enough of them."""
        rng = scene.common_rng("network")
        seen = {trial.path for trial in scene.trials}
        path = random_within(scene.goal, rng)
        for _ in range(TRIES):
            if tuple(path) not in seen:
                break
            path = random_within(scene.goal, rng)
        return Update(trial=supernet_trial(scene, path))


class Evolution:
    """Change one op of the best of a few living networks; the oldest network dies."""

    weights: Literal["fixed"] = "fixed"

    def update(self, scene: UpdateContext) -> Update:
        """Score one child, or one random network until the population is full."""
        rng, settings = scene.common_rng("network"), scene.settings
        alive = scene.trials[-settings.population :]
        if len(alive) < settings.population:
            return Update(trial=supernet_trial(scene, random_within(scene.goal, rng)))
        compared = torch.randperm(len(alive), generator=rng)[: settings.tournament]
        parent = max((alive[int(i)] for i in compared), key=lambda trial: trial.score)
        return Update(trial=supernet_trial(scene, mutated(parent.path, scene.goal, rng)))


class RLTrials:
    """Train a sampled network alone for a few epochs; its reward moves the controller."""

    weights: Literal["alone"] = "alone"

    def update(self, scene: UpdateContext) -> Update:
        """Gradient of minus the expected reward, from one network."""
        probs = scene.net.probs()
        path = sample_path(probs, scene.common_rng("network"))
        seen = _train_alone(scene, path)
        trial = _trial(scene, path, seen, seen.top1)
        grads = policy_grads(probs, [path], [trial.score], scene.baseline)
        return Update(grads, reward=trial.score, trial=trial)


def random_within(goal: LatencyGoal, rng: torch.Generator) -> list[int]:
    """A random network within the budget.

    All of them are equally likely, as long as one of 100 networks is within the budget; else site
    by site, in random order, among the ops that leave the rest feasible.
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
    """Different random networks that take 95 to 100 % of the budget; see `random_at`.

    Where the slowest network within the budget takes less, they take 95 to 100 % of that. A larger
    count goes on where a smaller one ended. They are fewer where 100 draws in a row bring none that
    is new.
    """
    found, in_vain, draw = dict[tuple[int, ...], None](), 0, 0
    least_ms = WINDOW * goal.path_ms(slowest_within(goal))
    while len(found) < count and in_vain < TRIES:
        rng = generator(seed, "network at a latency", draw)
        path = tuple(random_at(goal, least_ms, rng))
        in_vain, draw = in_vain + 1 if path in found else 0, draw + 1
        found[path] = None
    return [list(path) for path in found]


def slowest_within(goal: LatencyGoal) -> list[int]:
    """The slowest network within the budget, to a rounding of the time that each site takes.

    Of exact times no choice of ops is dominated, so that all of them would have to be kept.

    Raises:
        ValueError: there is none.
    """
    costs = [torch.tensor(row, dtype=torch.float64) for row in goal.costs]
    units = [torch.tensor(row, dtype=torch.float64) for row in _units(goal)]
    found = best_paths(units, costs, goal.fixed_ms, goal.budget_ms, 1)
    if not found:
        raise ValueError(f"no network within {goal.budget_ms:g} ms on '{goal.table.hardware}'")
    return found[0]


def random_at(goal: LatencyGoal, least_ms: float, rng: torch.Generator) -> list[int]:
    """A random network that takes from `least_ms` to the budget, all of them equally likely.

    The networks of every latency are counted, latencies rounded to 1/2000 of what the budget leaves
    above the fastest network, and ops are drawn site by site in proportion to the networks that go
    on from there. What rounding lets in from beside the window is drawn again. Where nothing is
    found in it, the slowest network within the budget.
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
    """What every op takes above the fastest of its site."""
    unit_ms = _unit_ms(goal)
    return [[round((cost - min(row)) / unit_ms) for cost in row] for row in goal.costs]


def _first_unit(goal: LatencyGoal, least_ms: float) -> int:
    """The fewest units of a network that takes `least_ms`: each site may be half a unit off."""
    units = int((least_ms - _fastest_ms(goal)) / _unit_ms(goal)) - len(goal.costs) // 2 - 1
    return min(max(0, units), UNITS)


def _ways(goal: LatencyGoal) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Units of every op at every site; and for each site, how many choices of the ops from it on
    take 0, 1, 2, ... units, as far as the budget."""
    units, most = _units(goal), UNITS + len(goal.costs) // 2 + 1
    ways = [torch.zeros(most + 1, dtype=torch.float64)]
    ways[0][0] = 1.0
    for row in reversed(units):
        before = torch.zeros_like(ways[0])
        for taken in (one for one in row if one <= most):
            before[taken:] += ways[0][: most + 1 - taken]
        ways.insert(0, before)
    return units, ways


def _path_of(
    left: int, units: list[list[int]], ways: list[torch.Tensor], rng: torch.Generator
) -> list[int]:
    """One of the networks that take `left` units, all of them equally likely."""
    path = []
    for row, after in zip(units, ways[1:], strict=True):
        counts = [float(after[left - taken]) if taken <= left else 0.0 for taken in row]
        weights = torch.tensor(counts, dtype=torch.float64)
        path.append(int(torch.multinomial(weights, 1, generator=rng)))
        left -= row[path[-1]]
    return path


def mutated(parent: Sequence[int], goal: LatencyGoal, rng: torch.Generator) -> list[int]:
    """The parent with another op at one random site, within the budget.

    Where no such network is found, a random one within the budget.
    """
    for _ in range(TRIES):
        site = int(torch.randint(len(parent), (1,), generator=rng))
        others = [j for j in range(len(goal.costs[site])) if j != parent[site]]
        child = list(parent)
        child[site] = others[int(torch.randint(len(others), (1,), generator=rng))]
        if goal.path_ms(child) <= goal.budget_ms:
            return child
    return random_within(goal, rng)


def supernet_trial(scene: UpdateContext, path: Sequence[int]) -> ScoredNetwork:
    """A network scored with supernet weights."""
    refresh, held_out = scoring_batches(scene.data, scene.settings)
    seen = score(scene.net, path, refresh, held_out, scene.group)
    return _trial(scene, path, seen, quality(seen, scene.settings))


def quality(seen: Evaluation, settings: SearchSettings) -> float:
    """What supernet weights tell of a network, 0 to 1: accuracy, or exp(-cross entropy).

    0 for a network that has no cross entropy (nan).
    """
    if settings.scored_by == "accuracy":
        return seen.top1
    return 0.0 if isnan(seen.loss) else exp(-seen.loss)


def _trial(
    scene: UpdateContext, path: Sequence[int], seen: Evaluation, accuracy: float
) -> ScoredNetwork:
    goal = scene.goal
    latency_ms = goal.path_ms(list(path))
    score = scene.objective.reward(accuracy, latency_ms, goal.budget_ms)
    return ScoredNetwork(tuple(path), seen.top1, seen.loss, latency_ms, score)


def _train_alone(scene: UpdateContext, path: Sequence[int]) -> Evaluation:
    """Train a network from scratch on the weight part, test it on the architecture part."""
    search = scene.settings
    recipe = RetrainSettings(
        epochs=search.trial_epochs,
        lr=search.warmup_lr or scaled_warmup_lr(search.trial_epochs * scene.data.weight.steps),
        **{one.name: getattr(search, one.name) for one in fields(TrainingSettings)},
    )
    architecture = Architecture.from_path(scene.goal.table.space, list(path))
    seed = counted_seed(scene.seed, "trial", scene.number)
    state = start_training(architecture, recipe, seed, scene.goal.costs_ms[0].device)
    train_to_the_end(state, scene.data.weight, recipe, seed, scene.group)
    refresh, held_out = scoring_batches(scene.data, scene.settings)
    if search.bn_images:
        refresh_statistics(state.network, refresh)
    return evaluate(averaged_copy(state.network, scene.group), held_out, scene.group)
