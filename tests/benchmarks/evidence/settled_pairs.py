"""Effect of `search.settle_pairs` on the space of the evidence, with the seeds used for tuning.

The tabular benchmark has three ops per site, so a pair leaves out only one; this space has seven.
`python tests/benchmarks/evidence/settled_pairs.py` runs `jobs/compare_mobilenet.yaml` on `cpu` at
the two budgets at which a search beats random networks, with the setting on and off; all other
settings are defaults. The job trains and tests every network alone. A run that was stopped
continues where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY))

from tests.benchmarks.evidence.networks import Trained, networks_of, of_kind
from tests.benchmarks.lines import TORCH, commit, keep, line
from tests.benchmarks.truth import paired

SETTINGS = (
    *("seeds=[0, 1, 2, 3, 4]", "search.warmup_sampling=uniform", "record.experiment=tuning"),
    'cases=[{target: cpu, budgets_ms: ["35%", "50%"]}]',
)


def searched(storage: str, is_settled: bool) -> list[Trained]:
    """Trained networks of the searches with the setting on or off."""
    word = str(is_settled).lower()
    words = (f"name=pairs_{word}", f"search.settle_pairs={word}", f"storage={storage}")
    return of_kind(networks_of([*SETTINGS, *words])[1], "search")


def differences(base: Sequence[Trained], other: Sequence[Trained]) -> Iterator[dict[str, Any]]:
    """A row per budget: accuracy of `other` less that of `base`, paired by seed."""
    for budget in sorted({str(item.budget) for item in base}):
        less, more = _by_seed(base, budget), _by_seed(other, budget)
        away = paired([more[seed] - less[seed] for seed in less])
        yield {
            "what": f"pairs settled, cpu, budget {budget}",
            "top1": round(fmean(more.values()), 2),
            "top1, not settled": round(fmean(less.values()), 2),
            "points": [round(value, 2) for value in (away.mean, away.low, away.high)],
            "n": len(less),
        }


def _by_seed(networks: Sequence[Trained], budget: str) -> dict[int, float]:
    return {network.seed: network.top1 for network in networks if network.budget == budget}


def main() -> None:
    """Run both variants and write their differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--storage", default=str(Path.home() / "proxyless" / "tuning"))
    storage = parser.parse_args().storage
    where = {"device": line("", [0.0])["device"], "torch": TORCH, "commit": commit()}
    rows = differences(searched(storage, is_settled=False), searched(storage, is_settled=True))
    keep("settled_pairs", [{**where, **row} for row in rows])


if __name__ == "__main__":
    main()
