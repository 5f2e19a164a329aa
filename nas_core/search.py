"""The search loop, as a generator of epoch reports.

Warm-up: weight steps on uniformly drawn paths. It does not depend on hardware: a search without a
goal ends after it, and searches for any hardware can start from its result. Search: weight steps on
paths drawn from the op probabilities and, every few steps, an update of the strategy on the
held-out split (ProxylessNAS, sections 3.2 and 3.3; no update in the first epoch, as released).
Sampling strategies score networks whenever the others would make an update, and train no weights.
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
from nas_core.precision import precision_of, to_device
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
"""Phases in which op probabilities change."""


def start_search(
    space: SearchSpace, settings: SearchSettings, seed: int, device: torch.device
) -> SearchState:
    """Initial state of a search: a supernet with new weights, and the two optimizers."""
    supernet = Supernet(space, generator(seed, "supernet weights"))
    if settings.op_start == "aligned":
        supernet.align()
    to_device(supernet, settings, device)
    weight_optimizer = torch.optim.SGD(
        supernet.weights(),
        settings.lr,
        settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )
    # beta1 = 0: with momentum, alphas that were not sampled would keep changing. Every update
    # sets its own learning rate.
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
    """Continue `state` to the end of the search; yield a report after each epoch."""
    for report in search_steps(Search(state, data, goal, settings, seed, group)):
        if report is not None:
            yield report


def search_steps(search: Search) -> Iterator[EpochReport | None]:
    """Like `search_epochs`, step by step: yields None after each step within an epoch.

    At each yield the state can be saved, or the loop left.
    """
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
    """One epoch of weight steps, interleaved with updates."""
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
    """One epoch of scoring networks with the weights of the warm-up."""
    state, count = search.state, search.schedule.scores_in(search.state.epoch)
    while state.step < count:
        alpha_step(search, None)
        state.step += 1
        _exchange_signals(search)
        if state.step < count:
            yield None
    yield _report(search, "compare", None, epochs=1)


def _trial_epochs(search: Search) -> Iterator[EpochReport]:
    """Networks trained from scratch: one report per network, which takes `trial_epochs` epochs."""
    state, passes = search.state, search.settings.trial_epochs
    while state.epoch + passes <= search.settings.total_epochs:
        alpha_step(search, None)
        _exchange_signals(search)
        yield _report(search, "trial", None, epochs=passes)


def _exchange_signals(search: Search) -> None:
    """Exchange step signals between workers in phases without weight steps.

    Weight steps send them along with the gradients.
    """
    signals = search.state.supernet.alphas()[0].detach().new_tensor(search.group.signal_values())
    search.group.sum([signals])
    search.group.apply_signals(signals.tolist())


def weight_step(
    state: SearchState, batch: Batch, path: Sequence[Choice], trainer: Trainer, lr: float
) -> None:
    """Train the ops of one path; all others keep weight, momentum and BatchNorm statistics."""
    supernet = state.supernet
    on_path = supernet.on_path(path)
    target = StepTarget(
        forward=lambda part: supernet(part.images, path),
        parameters=[p for module in on_path for p in module.parameters()],
        buffers=[buffer for module in on_path for buffer in module.buffers()],
        what=f"path {path_text(path)}",
    )
    trainer.step(batch, target, state, lr)


def path_text(path: Sequence[Choice]) -> str:
    """Chosen op per site; "*" if all ops of a site run."""
    return "-".join(str(choice) if isinstance(choice, int) else "*" for choice in path)


def _draw_path(search: Search, step: int) -> Sequence[Choice]:
    """Path of a weight step; the same on all workers, without communication."""
    state = search.state
    if search.strategy.weights == "mixture":
        return state.supernet.probs()
    if search.is_warm_up:
        choices = state.supernet.choices()
        return search.schedule.warmup_path(choices, search.seed, state.epoch, step)
    rng = generator(search.seed, "path", state.epoch, step)
    return sample_path(state.supernet.probs(), rng)


def _report(search: Search, phase: str, tally: Tally | None, epochs: int) -> EpochReport:
    """Close an epoch and report on it, from the weight steps in `tally` or the scored networks."""
    state = search.state
    search.group.agree("the architecture parameters", alphas_digest(state.supernet))
    search.group.agree(f"the paths of epoch {state.epoch + 1}", state.trained)
    probs = state.supernet.probs()
    state.end_epoch(epochs)
    if tally is not None:
        evaluation = tally.evaluation(search.group)
        facts = (evaluation.loss, evaluation.top1, _expected_ms(search, phase))
    elif state.trials:
        best = best_trial(state.trials)
        facts = (best.loss, best.accuracy, best.latency_ms)
    else:  # nothing has been scored yet
        facts = (math.nan, math.nan, _expected_ms(search, phase))
    current = [p.tolist() for p in probs] if phase in MOVING else None
    return EpochReport(phase, state.epoch - 1, *facts, mean_entropy(probs), state.skipped, current)


def _expected_ms(search: Search, phase: str) -> float | None:
    """Expected latency; None in the warm-up, which does not depend on hardware."""
    if phase == "warmup":
        return None
    return float(search.needed_goal.expected_ms(search.state.supernet.probs()))


def best_trial(trials: Sequence[ScoredNetwork]) -> ScoredNetwork:
    """The network with the best score; the earliest of several."""
    return max(trials, key=lambda trial: trial.score)


def choose(
    state: SearchState, table: LatencyTable, budget_ms: float, settings: SearchSettings
) -> Architecture:
    """The architecture found by a finished search.

    This is the most probable architecture within the budget. For strategies that score networks, it
    is the best scored network within the budget; if the controller of `rl_trials` tried none that
    is, its most probable one.

    Raises:
        BudgetError: there is no such network.
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
    """Current quality of a search: top-1 accuracy, 0 to 1, on the architecture split.

    It is the accuracy of the most probable network within the budget, with supernet weights. The
    search does not change and no random numbers are drawn, so it continues as if this had not been
    called. To be called on all workers.
    """
    supernet, goal = search.state.supernet, search.needed_goal
    path = best_within(supernet.log_probs(), goal.table, goal.budget_ms).path()
    batches = scoring_batches(search.data, search.settings)
    return score(supernet, path, *batches, search.group).top1


def latency_note(state: SearchState, goal: LatencyGoal, settings: SearchSettings) -> str | None:
    """Explanation if the search ended far from the budget, by expected latency; else None."""
    if settings.strategy in ("random", "evolution"):  # within the budget by construction
        return None
    expected_ms = float(goal.expected_ms(state.supernet.probs()))
    if not missed(expected_ms, goal.budget_ms):
        return None
    result = (
        f"the search ended at an expected latency of {expected_ms:.4g} ms, "
        f"{expected_ms / goal.budget_ms - 1:+.0%} from the budget of {goal.budget_ms:.4g} ms"
    )
    return f"{result}: {_why_missed(settings.objective_name, expected_ms < goal.budget_ms)}"


ONE_SIDED = ("add_linear", "mul_log", "power")
"""Objectives that keep reducing the latency below the budget."""


def _why_missed(objective: str, is_below: bool) -> str:
    if objective == "none":
        return "objective 'none' has no latency term"
    if objective == "learnt":
        return "the penalty was too weak for so few updates; raise epochs or rho"
    if is_below and objective in ONE_SIDED:
        return f"'{objective}' pushes on below a budget; lower beta, or take objective 'learnt'"
    return "the penalty was too weak; raise beta, or take objective 'learnt'"


def weights_digest(module: nn.Module) -> str:
    """Sixteen hexadecimal digits; bit-identical parameters have equal digests."""
    digest = hashlib.sha256()
    for parameter in module.parameters():
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def alphas_digest(supernet: Supernet) -> str:
    """Sixteen hexadecimal digits; bit-identical architecture parameters have equal digests."""
    values = torch.cat([alpha.detach().cpu().flatten() for alpha in supernet.alphas()])
    return hashlib.sha256(str(values.tolist()).encode()).hexdigest()[:16]
