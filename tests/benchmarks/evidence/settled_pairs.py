"""What settling pairs is worth on the space of the evidence, from the seeds of tuning.

The yardstick has three ops a site, of which a pair leaves out one; here a site has seven. Run
`python tests/benchmarks/evidence/settled_pairs.py` for `jobs/compare_mobilenet.yaml` on `cpu`,
within the two budgets at which a search is ahead of random networks, with pairs settled and
without; all else is a default. Every network is trained alone and tested by that job; started
again it goes on where it was stopped.
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
    """Networks that searches found, each trained."""
    word = str(is_settled).lower()
    words = (f"name=pairs_{word}", f"search.settle_pairs={word}", f"storage={storage}")
    return of_kind(networks_of([*SETTINGS, *words])[1], "search")


def differences(base: Sequence[Trained], other: Sequence[Trained]) -> Iterator[dict[str, Any]]:
    """A row for each budget: points of `other`, less those of `base`, from seed to seed."""
    for budget in sorted({str(one.budget) for one in base}):
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
    return {one.seed: one.top1 for one in networks if one.budget == budget}


def main() -> None:
    """Both, and what is between them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--storage", default=str(Path.home() / "proxyless" / "tuning"))
    storage = parser.parse_args().storage
    where = {"device": line("", [0.0])["device"], "torch": TORCH, "commit": commit()}
    rows = differences(searched(storage, is_settled=False), searched(storage, is_settled=True))
    keep("settled_pairs", [{**where, **row} for row in rows])


if __name__ == "__main__":
    main()
