"""Random networks of the searched space that take as long as those that were found.

For a found network of each seed some are drawn that take 95 to 100 % of its latency by the table of
its target, all of them equally likely, and trained by the same recipe from the same seed. What the
found ones are ahead, less than which a search would be worth nothing, is averaged over seeds, with
Student's 95 % interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable
from nas_core.objective import LatencyGoal
from nas_core.sampling_strategies import random_networks_at
from tests.benchmarks.evidence.curve import accuracies, mean_with_interval
from tests.benchmarks.evidence.markdown import AHEAD
from tests.benchmarks.evidence.networks import Trained, of_kind, seeds

Row = dict[str, Any]
COUNT = 2
"""Networks beside each that was found."""
TARGETS, BUDGETS = ("cpu", "mobile"), ("35%", "50%", "100%")


def write_networks(
    networks: Sequence[Trained], tables: Mapping[str, LatencyTable], seed: int, folder: Path
) -> list[str]:
    """Draw random networks beside what was found from a seed, and write their files.

    Returns:
        Settings of a job that trains them.
    """
    cases = []
    for one in _compared(networks):
        if one.seed != seed:
            continue
        for number, network in enumerate(drawn(one, tables[one.own])):
            file = folder / str(seed) / one.own / f"{_name(one)}{number}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(network.to_json())
            cases.append({"target": one.own, "architecture": str(file)})
    name = f"name=compare_mobilenet_random_{seed}"
    return [name, f"seeds=[{seed}]", f"cases={json.dumps(cases)}", "measure.across=false"]


def drawn(found: Trained, table: LatencyTable) -> list[Architecture]:
    """Random networks that take as long as one, by a table; the same for every call."""
    latency_ms = table.latency_ms(Architecture(table.space, found.ops))
    goal = LatencyGoal(table, latency_ms, torch.device("cpu"))
    paths = random_networks_at(goal, COUNT, found.seed)
    return [Architecture.from_path(table.space, path) for path in paths]


def random_rows(networks: Sequence[Trained], random: Sequence[Trained]) -> list[Row]:
    """For each target and budget: what random networks reach, and what found ones are ahead."""
    groups: dict[str, list[tuple[Trained, list[Trained]]]] = {}
    for one in _compared(networks):
        beside = [
            other
            for other in of_kind(random, "given", one.own)
            if other.seed == one.seed and other.name.startswith(_name(one))
        ]
        groups.setdefault(f"{one.own}, budget {one.budget}", []).append((one, beside))
    return [_row(what, pairs) for what, pairs in groups.items()]


def _row(what: str, pairs: Sequence[tuple[Trained, Sequence[Trained]]]) -> Row:
    ahead = [one.top1 - fmean(other.top1 for other in beside) for one, beside in pairs]
    return {
        "what": f"{what}: random networks as slow as what was found",
        **accuracies([other for _, beside in pairs for other in beside]),
        "found": round(fmean(one.top1 for one, _ in pairs), 2),
        AHEAD: mean_with_interval(ahead),
        "seeds": len(pairs),
    }


def _compared(networks: Sequence[Trained]) -> list[Trained]:
    """The found networks that random ones are held against."""
    return [
        one
        for seed in seeds(networks)
        for target in TARGETS
        for one in of_kind(networks, "search", target)
        if one.seed == seed and str(one.budget) in BUDGETS
    ]


def _name(one: Trained) -> str:
    """Of the random ones beside it, less their number."""
    return f"random-{str(one.budget).strip('%')}-"
