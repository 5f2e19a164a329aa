"""How the op probabilities of a search are kept."""

from __future__ import annotations

from typing import Any

from nas_core.architecture import Architecture
from nas_core.baselines.registry import for_space
from orchestration.stages.candidate import Candidate
from orchestration.stages.result import probabilities
from tests.support.job_folder import OPS, SPACE

EPOCHS: list[dict[str, Any]] = [
    {"phase": "warmup", "epoch": 0, "probs": None},
    {"phase": "search", "epoch": 1, "probs": [[1 / 3, 2 / 3]] * 6},
    {"phase": "search", "epoch": 2, "probs": [[0.123456789, 0.876543211]] * 6},
]


def found(**changes: Any) -> Candidate:
    values = {"model": Architecture(SPACE, OPS), "table_ms": 0.3, "history": EPOCHS} | changes
    return Candidate(**{"measured_ms": None, "measured_spread": None, "tries": [], **values})


def test_probabilities_are_kept_for_the_epochs_in_which_they_moved() -> None:
    kept = probabilities(found())
    assert kept is not None
    assert [one["epoch"] for one in kept["epochs"]] == [1, 2]
    assert kept["epochs"][1]["probs"][0] == [0.12346, 0.87654]
    assert kept["sites"] == [site.name for site in SPACE.sites]
    assert kept["ops"] == [list(site.ops) for site in SPACE.sites]


def test_without_a_search_there_are_none() -> None:
    assert probabilities(found(history=[])) is None
    assert probabilities(found(history=EPOCHS[:1])) is None
    assert probabilities(found(model=for_space("mnasnet", SPACE))) is None
