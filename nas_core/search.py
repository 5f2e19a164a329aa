"""The search loop, as a generator of epoch reports.

Warm-up: weight steps on uniformly drawn paths; it depends on no hardware, so a search without a
goal ends with it, and searches for any hardware can go on from there. Search: weight steps on paths
drawn from the op probabilities and, after every few of them, an update of the strategy on the
held-out split (ProxylessNAS, sections 3.2 and 3.3; no update in the first epoch, as released).
Strategies that only compare networks score them where the others make their updates, and train no
weights.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from nas_core.alpha_step import alpha_step
from nas_core.architecture import Architecture
from nas_core.batch import Batch, SearchData
from nas_core.derive import BudgetError, best_within
from nas_core.gates import sample_path
from nas_core.latency import LatencyTable
from nas_core.objective import LatencyGoal, missed
from nas_core.precision import place, precision_of
from nas_core.progress import EpochReport, Tally
from nas_core.randomness import generator
from nas_core.ranking import score, scoring_batches
from nas_core.search_settings import SearchSettings
from nas_core.search_state import Search, SearchState
from nas_core.space import SearchSpace
from nas_core.strategy import ScoredNetwork
from nas_core.supernet import Choice, Supernet
from nas_core.train import mean_entropy
from nas_core.train_step import StepTarget, Trainer
from nas_core.workers import ProcessGroup

MOVING = ("search", "trial")
"""Phases in which op probabilities move."""


def start_search(
    space: SearchSpace, settings: SearchSettings, seed: int, device: torch.device
) -> SearchState:
    """A freshly initialised supernet and its two optimizers."""
    supernet = Supernet(space, generator(seed, "supernet weights"))
    if settings.op_start == "aligned":
        supernet.align()
    place(supernet, settings, device)
    weight_optimizer = torch.optim.SGD(
        supernet.weights(),
        settings.lr,
        settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )
    # beta1 = 0: with momentum, alphas that were not sampled would go on moving. Every update sets
    # its own learning rate.
    alpha_optimizer = torch.optim.Adam(supernet.alphas(), betas=(0.0, 0.999))
    scaler = precision_of(settings, device).scaler()
    return SearchState(supernet, weight_optimizer, alpha_optimizer, scaler)


def search_epochs(
    state: SearchState,
    data: SearchData,
    goal: LatencyGoal,
    settings: SearchSettings,
    seed: int,
    group: ProcessGroup,
) -> Iterator[EpochReport]:
    """Continue `state` to the end of the search; after each epoch yield what happened in it."""
    for report in search_steps(Search(state, data, goal, settings, seed, group)):
        if report is not None:
            yield report


def search_steps(search: Search) -> Iterator[EpochReport | None]:
    """The same step by step: None after each, where the state may be saved, or the loop left."""
    state, data, weights = search.state, search.data, search.strategy.weights
    if weights == "alone":
        yield from _trial_epochs(search)
        return
    batches = data.weight.batches(state.epoch * data.weight.steps + state.step)
    held_out = data.architecture.batches(state.alpha_steps)
    while state.epoch < search.last_epoch:
        state.supernet.train()
        if weights == "fixed" and not search.is_warm_up:
            yield from _compare_epoch(search)
        else:
            yield from _train_epoch(search, batches, held_out)


def _train_epoch(
    search: Search, batches: Iterator[Batch], held_out: Iterator[Batch]
) -> Iterator[EpochReport | None]:
    """Weight steps and, in between, updates."""
    state, schedule = search.state, search.schedule
    phase = "warmup" if search.is_warm_up else "search"
    trainer = Trainer.of(state.weight_optimizer, state.scaler, search.settings, search.group)
    while state.step < schedule.steps:
        step, lr = state.step, schedule.weight_lr(state.epoch, state.step)
        weight_step(state, next(batches), _draw_path(search, step), trainer, lr)
        if schedule.is_update_turn(state.epoch, step):
            alpha_step(search, next(held_out))
        if state.step < schedule.steps:
            yield None
    yield _report(search, phase, state.tally, epochs=1)


def _compare_epoch(search: Search) -> Iterator[EpochReport | None]:
    """Networks scored with the weights that the warm-up left."""
    state, count = search.state, search.schedule.scores_in(search.state.epoch)
    while state.step < count:
        alpha_step(search, None)
        state.step += 1
        _exchange_wishes(search)
        if state.step < count:
            yield None
    yield _report(search, "compare", None, epochs=1)


def _trial_epochs(search: Search) -> Iterator[EpochReport]:
    """Networks trained alone; a report for each, which takes `trial_epochs` passes."""
    state, passes = search.state, search.settings.trial_epochs
    while state.epoch + passes <= search.settings.total_epochs:
        alpha_step(search, None)
        _exchange_wishes(search)
        yield _report(search, "trial", None, epochs=passes)


def _exchange_wishes(search: Search) -> None:
    """Where no gradients travel that could take them along."""
    signals = search.state.supernet.alphas()[0].detach().new_tensor(search.group.signal_values())
    search.group.sum([signals])
    search.group.apply_signals(signals.tolist())


def weight_step(
    state: SearchState, batch: Batch, path: Sequence[Choice], trainer: Trainer, lr: float
) -> None:
    """Train the ops of one path; all others keep weight, momentum and BatchNorm statistics."""
    supernet = state.supernet
    modules = supernet.on_path(path)
    trained = StepTarget(
        forward=lambda part: supernet(part.images, path),
        parameters=[p for module in modules for p in module.parameters()],
        buffers=[buffer for module in modules for buffer in module.buffers()],
        what=f"path {path_text(path)}",
    )
    trainer.step(batch, trained, state, lr)


def path_text(path: Sequence[Choice]) -> str:
    """Chosen op per site; "*" where all run."""
    return "-".join(str(one) if isinstance(one, int) else "*" for one in path)


def _draw_path(search: Search, step: int) -> Sequence[Choice]:
    """What a weight step trains: the same on all workers without a word between them."""
    state = search.state
    if search.strategy.weights == "mixture":
        return state.supernet.probs()
    if search.is_warm_up:
        choices = state.supernet.choices()
        return search.schedule.warmup_path(choices, search.seed, state.epoch, step)
    rng = generator(search.seed, "path", state.epoch, step)
    return sample_path(state.supernet.probs(), rng)


def _report(search: Search, phase: str, tally: Tally | None, epochs: int) -> EpochReport:
    """Close an epoch: of the weight steps in `tally`, or of the networks scored so far."""
    state = search.state
    search.group.agree("the architecture parameters", alphas_digest(state.supernet))
    search.group.agree(f"the paths of epoch {state.epoch + 1}", state.trained)
    probs = state.supernet.probs()
    state.end_epoch(epochs)
    if tally is not None:
        seen = tally.evaluation(search.group)
        facts = (seen.loss, seen.top1, _expected_ms(search, phase))
    elif state.trials:
        best = best_trial(state.trials)
        facts = (best.loss, best.accuracy, best.latency_ms)
    else:  # no turn came yet
        facts = (math.nan, math.nan, _expected_ms(search, phase))
    moving = [one.tolist() for one in probs] if phase in MOVING else None
    return EpochReport(phase, state.epoch - 1, *facts, mean_entropy(probs), state.skipped, moving)


def _expected_ms(search: Search, phase: str) -> float | None:
    """None in the warm-up: it is the same for all hardware."""
    if phase == "warmup":
        return None
    return float(search.needed_goal.expected_ms(search.state.supernet.probs()))


def best_trial(trials: Sequence[ScoredNetwork]) -> ScoredNetwork:
    """The network of the best score, the earliest of equals."""
    return max(trials, key=lambda trial: trial.score)


def choose(
    state: SearchState, table: LatencyTable, budget_ms: float, settings: SearchSettings
) -> Architecture:
    """The architecture that a finished search ends with.

    The most probable one within the budget; for strategies that compare networks the best of those
    that were scored and are within it. The controller of `rl_trials` may have tried none: then its
    most probable one.

    Raises:
        BudgetError: there is none.
    """
    goal = LatencyGoal(table, budget_ms, torch.device("cpu"))
    within = [t for t in state.trials if goal.path_ms(list(t.path)) <= budget_ms]
    if within:
        return Architecture.from_path(table.space, list(best_trial(within).path))
    if settings.strategy in ("random", "evolution"):
        raise BudgetError(
            f"none of the {len(state.trials)} networks that were scored is within "
            f"{budget_ms:.4g} ms on '{table.hardware}'; search again, with more of them"
        )
    return best_within(state.supernet.log_probs(), table, budget_ms)


def score_within(search: Search) -> float:
    """How good a search is by now: top-1, 0 to 1, on the architecture part.

    Of the most probable network within the budget, with supernet weights. The search does not
    change, and draws nothing: it goes on as if nobody had asked. To be called on all workers.
    """
    supernet, goal = search.state.supernet, search.needed_goal
    path = best_within(supernet.log_probs(), goal.table, goal.budget_ms).path()
    batches = scoring_batches(search.data, search.settings)
    return score(supernet, path, *batches, search.group).top1


def latency_note(state: SearchState, goal: LatencyGoal, settings: SearchSettings) -> str | None:
    """What is to be said about the expected latency at the end of a search; None if it was held."""
    if settings.strategy in ("random", "evolution"):  # within the budget by construction
        return None
    expected_ms = float(goal.expected_ms(state.supernet.probs()))
    if not missed(expected_ms, goal.budget_ms):
        return None
    ends = (
        f"the search ended at an expected latency of {expected_ms:.4g} ms, "
        f"{expected_ms / goal.budget_ms - 1:+.0%} from the budget of {goal.budget_ms:.4g} ms"
    )
    return f"{ends}: {_why_missed(settings.objective_name, expected_ms < goal.budget_ms)}"


ONE_SIDED = ("add_linear", "mul_log", "power")
"""Objectives that push on below the budget."""


def _why_missed(objective: str, is_below: bool) -> str:
    if objective == "none":
        return "objective 'none' has no latency term"
    if objective == "learnt":
        return "the penalty was too weak for so few updates; raise epochs or rho"
    if is_below and objective in ONE_SIDED:
        return f"'{objective}' pushes on below a budget; lower beta, or take objective 'learnt'"
    return "the penalty was too weak; raise beta, or take objective 'learnt'"


def weights_digest(module: nn.Module) -> str:
    """Sixteen hexadecimal digits that are equal for bit-identical parameters."""
    found = hashlib.sha256()
    for parameter in module.parameters():
        found.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def alphas_digest(supernet: Supernet) -> str:
    """Sixteen hexadecimal digits that are equal for bit-identical architecture parameters."""
    values = torch.cat([alpha.detach().cpu().flatten() for alpha in supernet.alphas()])
    return hashlib.sha256(str(values.tolist()).encode()).hexdigest()[:16]
