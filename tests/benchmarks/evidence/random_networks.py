"""Random networks of the searched space with the latency of the searched ones.

For a searched network of each seed, networks are drawn uniformly among those with 95 to 100 % of
its latency by the table of its target, and trained with the same recipe from the same seed. The
lead of the searched networks is averaged over seeds, with Student's 95 % interval; a search is
worth something only if it is above 0.
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
"""Random networks per searched network."""
TARGETS, BUDGETS = ("cpu", "mobile"), ("35%", "50%", "100%")


def write_networks(
    networks: Sequence[Trained], tables: Mapping[str, LatencyTable], seed: int, folder: Path
) -> list[str]:
    """Draw random networks for the searched ones of a seed, and write their files.

    Returns:
        Settings of a job that trains them.
    """
    cases = []
    for item in _compared(networks):
        if item.seed != seed:
            continue
        for number, network in enumerate(drawn(item, tables[item.own])):
            file = folder / str(seed) / item.own / f"{_name(item)}{number}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(network.to_json())
            cases.append({"target": item.own, "architecture": str(file)})
    name = f"name=compare_mobilenet_random_{seed}"
    return [name, f"seeds=[{seed}]", f"cases={json.dumps(cases)}", "measure.across=false"]


def drawn(found: Trained, table: LatencyTable) -> list[Architecture]:
    """Random networks with the latency of a searched one by a table; equal in every call."""
    latency_ms = table.latency_ms(Architecture(table.space, found.ops))
    goal = LatencyGoal(table, latency_ms, torch.device("cpu"))
    paths = random_networks_at(goal, COUNT, found.seed)
    return [Architecture.from_path(table.space, path) for path in paths]


def random_rows(networks: Sequence[Trained], random: Sequence[Trained]) -> list[Row]:
    """A row per target and budget: accuracy of random networks, lead of the searched ones."""
    groups: dict[str, list[tuple[Trained, list[Trained]]]] = {}
    for item in _compared(networks):
        beside = [
            other
            for other in of_kind(random, "given", item.own)
            if other.seed == item.seed and other.name.startswith(_name(item))
        ]
        groups.setdefault(f"{item.own}, budget {item.budget}", []).append((item, beside))
    return [_row(what, pairs) for what, pairs in groups.items()]


def _row(what: str, pairs: Sequence[tuple[Trained, Sequence[Trained]]]) -> Row:
    ahead = [pair.top1 - fmean(other.top1 for other in beside) for pair, beside in pairs]
    return {
        "what": f"{what}: random networks as slow as what was found",
        **accuracies([other for _, beside in pairs for other in beside]),
        "found": round(fmean(pair.top1 for pair, _ in pairs), 2),
        AHEAD: mean_with_interval(ahead),
        "seeds": len(pairs),
    }


def _compared(networks: Sequence[Trained]) -> list[Trained]:
    """Searched networks that random ones are compared with."""
    return [
        item
        for seed in seeds(networks)
        for target in TARGETS
        for item in of_kind(networks, "search", target)
        if item.seed == seed and str(item.budget) in BUDGETS
    ]


def _name(item: Trained) -> str:
    """Name of the random networks of a searched one, without their number."""
    return f"random-{str(item.budget).strip('%')}-"
