"""Searches on the space of the tabular benchmark, without Ray, in one process with one thread.

All searches of a seed that share the settings of the warm-up start from one warmed-up supernet, as
the cases of a sweep do. Nothing here reads a test image or the table of accuracies.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch

from nas_core.batch import SearchData
from nas_core.derive import k_best_within
from nas_core.latency import LatencyTable
from nas_core.objective import LatencyGoal
from nas_core.progress import Evaluation
from nas_core.ranking import rerank, score, scoring_batches
from nas_core.search import choose, search_epochs, start_search
from nas_core.search_settings import SearchSettings
from nas_core.search_state import STRATEGIES, SearchState
from nas_core.workers import SingleProcess
from orchestration.data.loader import MemoryLoader
from orchestration.data.loading import split_classes
from tests.benchmarks import tabular
from tests.benchmarks.tabular import Path_
from tests.support.tiny import noisy_table

CPU = torch.device("cpu")
WARM_UP = ("op_start", "warmup_epochs", "warmup_sampling", "op_warmup", "warmup_lr")
"""Settings that a warm-up depends on, apart from those that all searches here share."""


@dataclass(frozen=True)
class Found:
    """Result of a search."""

    path: Path_
    table_ms: float
    expected_ms: float
    """Expected latency under the final op probabilities."""
    cost: float
    """CPU time of warm-up and search, in weight steps of the warm-up."""


@cache
def parts(settings: SearchSettings, seed: int) -> SearchData:
    """Weight and architecture part of the training images, as a search splits them."""
    data = tabular.dataset()
    share, size = settings.architecture_share, settings.batch_size
    held_out, weight = split_classes(data.train, share, seed, "architecture split")
    return SearchData(
        MemoryLoader(weight, data.mean, data.std, size, seed, "search weights"),
        MemoryLoader(held_out, data.mean, data.std, size, seed, "search alphas"),
    )


@dataclass(frozen=True)
class WarmedUp:
    """Supernet from which searches start, and CPU seconds of a step."""

    state: SearchState
    step_s: float


@cache
def warmed_up(settings: SearchSettings, seed: int) -> WarmedUp:
    """The state after the warm-up of these settings."""
    data = parts(settings, seed)
    state = start_search(tabular.SPACE, settings, seed, CPU)
    table = noisy_table(tabular.SPACE, seed=0)  # latency has no part in a warm-up
    goal = LatencyGoal(table, table.range_ms()[1], CPU)
    began = time.process_time()
    epochs = search_epochs(state, data, goal, settings, seed, SingleProcess())
    for _ in islice(epochs, settings.warmup_epochs):
        pass
    steps = max(1, settings.warmup_epochs * data.weight.steps)
    return WarmedUp(state, (time.process_time() - began) / steps)


def warm_up_of(settings: SearchSettings) -> SearchSettings:
    """Settings that are equal for all searches with this warm-up."""
    same = {name: getattr(settings, name) for name in WARM_UP}
    is_mixture = STRATEGIES[settings.strategy]().weights == "mixture"
    return replace(
        SearchSettings(),
        strategy="darts" if is_mixture else "two_path",
        batch_size=settings.batch_size,
        architecture_share=settings.architecture_share,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        label_smoothing=settings.label_smoothing,
        **same,
    )


def searched(
    settings: SearchSettings, table: LatencyTable, budget_ms: float, seed: int
) -> tuple[SearchState, Found]:
    """Search from the shared warm-up to the end; return the final state and the result."""
    if STRATEGIES[settings.strategy]().weights == "alone":  # has no supernet, so no warm-up
        start = WarmedUp(start_search(tabular.SPACE, settings, seed, CPU), step_of(settings, seed))
    else:
        start = warmed_up(warm_up_of(settings), seed)
    state, data = copy.deepcopy(start.state), parts(warm_up_of(settings), seed)
    goal, began = LatencyGoal(table, budget_ms, CPU), time.process_time()
    steps = float(state.epoch * data.weight.steps)
    for _ in search_epochs(state, data, goal, settings, seed, SingleProcess()):
        pass
    path = derived(state, data, settings, table, budget_ms)
    steps += (time.process_time() - began) / start.step_s
    expected = float(goal.expected_ms(state.supernet.probs()))
    return state, Found(path, goal.path_ms(list(path)), expected, steps)


def derived(
    state: SearchState,
    data: SearchData,
    settings: SearchSettings,
    table: LatencyTable,
    budget_ms: float,
) -> Path_:
    """Derived network, as in `orchestration/stages/derive.py` but without measuring it."""
    if settings.rerank <= 1 or state.trials:
        return tuple(choose(state, table, budget_ms, settings).path())
    several = k_best_within(state.supernet.log_probs(), table, budget_ms, settings.rerank)
    scores = [supernet_score(state, data, settings, tuple(item.path())) for item in several]
    return tuple(rerank(several, scores, settings.scored_by)[0].path())


def supernet_score(
    state: SearchState, data: SearchData, settings: SearchSettings, path: Path_
) -> Evaluation:
    """Score of a network with supernet weights on the architecture part."""
    return score(state.supernet, path, *scoring_batches(data, settings), SingleProcess())


def supernet_scores(
    state: SearchState, settings: SearchSettings, seed: int, paths: Sequence[Path_]
) -> list[Evaluation]:
    """Scores of several networks with supernet weights."""
    data = parts(warm_up_of(settings), seed)
    return [supernet_score(state, data, settings, path) for path in paths]


def step_of(settings: SearchSettings, seed: int) -> float:
    """CPU seconds of a weight step, from a warm-up of one epoch."""
    return warmed_up(replace(warm_up_of(settings), warmup_epochs=1), seed).step_s
