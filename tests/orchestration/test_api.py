"""The sweep of the Python API is the job that a file would have said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestration.api import sweep, sweep_job
from orchestration.config.job import Job
from orchestration.config.loading import SpecError, check_job, job_text, load_job
from tests.conftest import REPOSITORY
from tests.support.worker_context import tiny_job

OWN = [
    {"target": "mobile", "budgets_ms": ["80%"]},
    {"target": "mobile", "baseline": "mnasnet"},
    {"target": "pixel1", "budgets_ms": [80.0]},
]


def base(folder: Path) -> Job:
    return tiny_job(folder, OWN)


def said(job: Job) -> list[tuple[Any, ...]]:
    return [(case.target, case.budgets_ms, case.baseline) for case in job.cases]


def test_a_file_and_the_api_say_the_same() -> None:
    path = REPOSITORY / "jobs" / "sweep_targets.yaml"
    budgets = {"mobile": ["60%", "100%", "140%"], "cpu": ["80%", "100%", "120%"]}
    base = load_job(REPOSITORY / "jobs" / "search_mobile.yaml")
    swept = sweep_job(base, ["mobile", "cpu"], budgets)
    assert said(swept) == said(load_job(path))


def test_budgets_are_for_all_targets(tmp_path: Path) -> None:
    swept = sweep_job(base(tmp_path), ["mobile", "cpu"], ["90%", 0.5], seeds=[0, 1])
    assert said(swept) == [
        ("mobile", ("90%", 0.5), None),
        ("cpu", ("90%", 0.5), None),
        ("mobile", None, "mnasnet"),
    ]
    assert swept.all_seeds == (0, 1)


def test_what_is_left_out_is_that_of_the_job(tmp_path: Path) -> None:
    swept = sweep_job(base(tmp_path))
    assert sorted(map(str, said(swept))) == sorted(map(str, said(base(tmp_path))))
    assert swept.all_seeds == (0,)


def test_targets_that_the_job_does_not_name_take_the_default_budgets(tmp_path: Path) -> None:
    swept = sweep_job(base(tmp_path), ["cpu", "pixel1"])
    assert said(swept) == [("cpu", None, None), ("pixel1", (80.0,), None)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"targets": []}, r"sweep: cases is \[\]; expected at least one target"),
        ({"budgets_ms": []}, r"sweep: cases\[0\].budgets_ms is \[\]; expected at least one"),
        ({"budgets_ms": "80%"}, r"budgets_ms is '80%'; expected a list, e.g. \['80%'\]"),
        ({"budgets_ms": {"cpu": [1.0]}}, "budgets_ms is for 'cpu', which is no target"),
        ({"budgets_ms": [0.5, 0.5]}, r"budgets_ms is \[0.5, 0.5\]; expected each budget once"),
        ({"targets": ["mobile", "mobile"]}, "expected each network once"),
        ({"targets": ["tablet"]}, r"cases\[0\].target is 'tablet'; expected one of cpu"),
        ({"seeds": [1, 1]}, r"seeds is \[1, 1\]; expected different whole numbers"),
        ({"seeds": []}, r"seeds is \[\]; expected different whole numbers"),
        ({"overrides": ["seed=1"]}, "overrides belong to a job file"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_named(
    tmp_path: Path, words: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        sweep(base(tmp_path), **words)


def test_a_job_with_seeds_is_read_back(tmp_path: Path) -> None:
    swept = sweep_job(base(tmp_path), seeds=[3, 4])
    assert check_job({**swept.to_dict(), "seeds": [3, 4]}, "again").seeds == (3, 4)
    assert swept.with_seed(4).seed == 4
    assert swept.with_seed(4).seeds is None


def test_what_is_recorded_is_the_file_that_would_have_said_the_same(tmp_path: Path) -> None:
    budgets = {"mobile": ["90%", 0.5]}
    swept = sweep_job(base(tmp_path), ["mobile", "cpu"], budgets, seeds=[0, 1])
    (tmp_path / "swept.yaml").write_text(job_text(swept))
    assert load_job(tmp_path / "swept.yaml") == swept
