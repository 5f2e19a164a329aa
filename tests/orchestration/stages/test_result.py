"""Fields of a result, and how the op probabilities of a search are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest

from nas_core.architecture import Architecture
from nas_core.baselines.registry import for_space
from orchestration.stages.candidate import Candidate
from orchestration.stages.result import probabilities, write_result
from orchestration.state.result import Result, Retrained, SearchFacts
from tests.support.job_folder import OPS, SPACE
from tests.support.worker_context import context_of, digits, tiny_job

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
    assert [item["epoch"] for item in kept["epochs"]] == [1, 2]
    assert kept["epochs"][1]["probs"][0] == [0.12346, 0.87654]
    assert kept["sites"] == [site.name for site in SPACE.sites]
    assert kept["ops"] == [list(site.ops) for site in SPACE.sites]


def test_without_a_search_there_are_none() -> None:
    assert probabilities(found(history=[])) is None
    assert probabilities(found(history=EPOCHS[:1])) is None
    assert probabilities(found(model=for_space("mnasnet", SPACE))) is None


def written(folder: Path, found: Candidate, outcome: Any) -> dict[str, Any]:
    """The `result.json` of a search that found this network."""
    context = context_of(tiny_job(folder), digits())
    write_result(context, context.task.case, found, outcome)
    values: dict[str, Any] = context.storage.read_json(f"{context.task.case.folder}/result.json")
    return values


def test_a_result_has_the_fields_of_its_type(tmp_path: Path) -> None:
    history = [{"phase": "search", "epoch": 0, "seconds": 2.0, "gpus": 0.0}]
    facts: Any = {name: {} for name in get_type_hints(SearchFacts)} | {"notes": []}
    outcome: Any = dict.fromkeys(get_type_hints(Retrained), 1.0) | {"retrain_history": history}
    values = written(tmp_path, found(history=history, search=facts), outcome)
    assert values.keys() == get_type_hints(Result).keys()


@pytest.mark.parametrize("outcome", [{}, {"top1": 0.9, "measured_ms": 0.2}])
def test_the_outcome_of_a_retraining_stands_in_the_result(
    tmp_path: Path, outcome: dict[str, float]
) -> None:
    values = written(tmp_path, found(history=[], measured_ms=0.1), outcome)
    assert (values["top1"], values["top5"]) == (outcome.get("top1"), None)
    assert values["measured_ms"] == outcome.get("measured_ms", 0.1)
    assert values["retrain_history"] == []
