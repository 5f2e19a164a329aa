"""A sweep of six cases on a real Ray: two at a time, one warm-up, independent cases.

The two targets have given tables, so nothing is timed here, and three budgets each. The sweep runs
once, in a fixture; further runs continue from a copy of its storage.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.faults import JOB_TIMEOUT_S, Rig, job_file, latency_rows, rig

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2 * JOB_TIMEOUT_S)]

BUDGETS = ["90%", "110%", "130%"]
SWEEP: dict[str, Any] = {
    "cases": [{"target": name, "budgets_ms": BUDGETS} for name in ("control", "other")],
    "search": {
        "warmup_epochs": 2,
        "epochs": 2,
        "batch_size": 64,
        "alpha_every": 2,
        "architecture_share": 0.2,
    },
    "retrain": {"epochs": 1, "batch_size": 64},
    "cluster": {"workers": 1, "cpus_per_worker": 1},
}
EPOCH = 17  # steps: 1,078 images in batches of 64
SAME = ("architecture_hash", "alphas", "supernet_weights", "retrained_weights", "top1", "workers")
"""Final state of a case, without times."""


@pytest.fixture(scope="module")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("faults"), 2) as made:
        yield made


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two targets; large kernels cost more on the second than on the first."""
    folder, result = tmp_path_factory.mktemp("tables"), {}
    for name, factor in (("control", 1.0), ("other", 1.3)):
        rows = latency_rows(folder)
        for row in rows:
            row["ms"] *= factor if "k5" in row["op"] else 1.0
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(rows))
        result[name] = {"table": str(path)}
    return result


def sweep_file(storage: Path, boards: dict[str, Any], **sections: Any) -> Path:
    return job_file(storage, Path("unused"), **{**SWEEP, "targets": boards, **sections})


def driven(made: Rig, job: Path, code: int = 0) -> str:
    driver = made.drive(job)
    said, _ = driver.communicate(timeout=JOB_TIMEOUT_S)
    assert driver.returncode == code, said
    return said


def results(storage: Path) -> dict[str, dict[str, Any]]:
    result = [json.loads(p.read_text()) for p in storage.glob("faulty/cases/*/result.json")]
    return {item["case"]: item for item in result}


def outcome(storage: Path) -> dict[str, Any]:
    return {
        name: {what: result.get(what) for what in SAME} for name, result in results(storage).items()
    }


def last_run(storage: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((storage / "faulty" / "job.json").read_text())["runs"][-1]
    return result


def searched(storage: Path) -> list[str]:
    return [name for name, result in results(storage).items() if result["kind"] == "search"]


@pytest.fixture(scope="module")
def whole(one_node: Rig, boards: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("whole")
    one_node.plan()
    one_node.pace(0.3)  # a search is then longer than the time between two starts
    driven(one_node, sweep_file(storage, boards))
    one_node.pace(0.0)
    return storage


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A storage in which the sweep is finished."""
    storage = tmp_path / "storage"
    shutil.copytree(whole, storage)
    return storage


def test_every_case_is_searched_retrained_and_within_its_budget(whole: Path) -> None:
    result = results(whole)
    assert len(searched(whole)) == 6
    assert {item["kind"] for item in result.values()} == {"search", "reference"}
    for name in searched(whole):
        assert result[name]["table_ms"] <= result[name]["budget_ms"]
        assert result[name]["tested"] == 450


def test_the_warm_up_is_trained_once_for_all(whole: Path) -> None:
    steps = last_run(whole)["steps"]
    assert steps["warmup"] == 2 * EPOCH
    assert steps["search"] == 6 * 2 * EPOCH
    assert len({results(whole)[name]["warmup_key"] for name in searched(whole)}) == 1
    assert len(list((whole / "warmups").iterdir())) == 1


def test_two_cases_run_at_once_and_never_more(whole: Path, one_node: Rig) -> None:
    spans = []
    for name in searched(whole):
        one = results(whole)[name]
        first = next(epoch for epoch in one["search_history"] if epoch["phase"] == "search")
        spans.append((first["time"] - first["seconds"], one["retrain_history"][-1]["time"]))
    most = max(sum(a <= begin < b for a, b in spans) for begin, _ in spans)
    assert most == 2
    assert len(one_node.starts()) == 0 or one_node.attempts() == 7  # a warm-up and six cases


def test_a_case_equals_the_same_case_run_alone(
    one_node: Rig, whole: Path, boards: dict[str, Any], tmp_path: Path
) -> None:
    cases = [{"target": "other", "budgets_ms": BUDGETS[:1]}]
    driven(one_node, sweep_file(tmp_path, boards, cases=cases))
    alone = outcome(tmp_path)
    assert len(alone) == 2
    assert {name: outcome(whole)[name] for name in alone} == alone


def test_a_changed_budget_adds_one_case(
    one_node: Rig, copied: Path, boards: dict[str, Any]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.glob("faulty/cases/*/result.json")}
    cases = [
        {"target": "control", "budgets_ms": [*BUDGETS, "120%"]},
        {"target": "other", "budgets_ms": BUDGETS},
    ]
    driven(one_node, sweep_file(copied, boards, cases=cases))
    assert last_run(copied)["steps"] == {"search": 2 * EPOCH, "retrain": 22}
    assert len(searched(copied)) == 7
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_case_that_fails_stops_no_other(
    one_node: Rig, copied: Path, boards: dict[str, Any]
) -> None:
    lost = searched(copied)[:2]
    for name in lost:
        shutil.rmtree(copied / "faulty" / "cases" / name)
    (copied / "faulty" / "cases" / lost[0]).write_text("a file where a folder has to be")
    said = driven(one_node, sweep_file(copied, boards), code=1)
    assert f"FAILED {lost[0]}: " in said
    assert f"FAILED {lost[1]}: " not in said
    assert lost[1] in searched(copied)
    (copied / "faulty" / "cases" / lost[0]).unlink()
    driven(one_node, sweep_file(copied, boards))
    assert len(searched(copied)) == 6


def test_a_stopped_sweep_starts_no_workers_for_cases_that_wait(
    one_node: Rig, copied: Path, boards: dict[str, Any]
) -> None:
    for name in searched(copied)[:4]:
        shutil.rmtree(copied / "faulty" / "cases" / name)
    one_node.plan()
    one_node.pace(0.2)
    driver = one_node.drive(sweep_file(copied, boards))
    one_node.wait_for_step(2, attempt=2)
    driver.send_signal(signal.SIGINT)
    said, _ = driver.communicate(timeout=JOB_TIMEOUT_S)
    assert driver.returncode == 130, said
    assert one_node.attempts() == 2
    one_node.plan()


@pytest.mark.long
def test_a_plan_times_steps_keeps_nothing_else_and_is_compared_with_what_happened(
    one_node: Rig, boards: dict[str, Any], tmp_path: Path
) -> None:
    cases = [{"target": "control", "budgets_ms": BUDGETS[:1]}]
    price = {**SWEEP["cluster"], "price_per_hour": 2.0}
    job = sweep_file(tmp_path, boards, cases=cases, cluster=price, retrain=None)
    driver = one_node.drive(job, ("-m", "orchestration", "plan"))
    said, _ = driver.communicate(timeout=JOB_TIMEOUT_S)
    assert driver.returncode == 0, said
    assert f"{2 * EPOCH} steps of search, about" in said
    assert "(1 node at 2 an hour)" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faulty.yaml", "timings"]
    assert [path.suffix for path in (tmp_path / "timings").iterdir()] == [".json"]
    said = driven(one_node, job)
    assert "; the plan estimated " in said
    assert last_run(tmp_path)["estimate_s"] > 0
    assert abs(last_run(tmp_path)["estimate_error"]) < 1.0


@pytest.mark.long
def test_budgets_that_share_a_search_take_that_of_the_middle_one(
    one_node: Rig, whole: Path, boards: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(whole / "warmups", tmp_path / "warmups")
    search = {**SWEEP["search"], "share": "target"}
    driven(one_node, sweep_file(tmp_path, boards, search=search, retrain=None))
    assert last_run(tmp_path)["steps"] == {"search": 2 * 2 * EPOCH}
    result, alphas = results(tmp_path), set()
    for name in searched(tmp_path):
        assert result[name]["table_ms"] <= result[name]["budget_ms"]
        alphas.add(tuple(result[name]["alphas"]))
    assert len(alphas) == 2
    middle = [name for name in searched(tmp_path) if result[name]["budget"] == BUDGETS[1]]
    for name in middle:  # as if it had been searched alone
        for what in ("architecture_hash", "alphas", "supernet_weights"):
            assert result[name][what] == results(whole)[name][what]


@pytest.mark.long
@pytest.mark.timeout(4 * JOB_TIMEOUT_S)
def test_a_driver_that_is_killed_at_three_moments_ends_with_the_same_results(
    one_node: Rig, whole: Path, boards: dict[str, Any], tmp_path: Path
) -> None:
    job, done = sweep_file(tmp_path, boards), dict[Path, int]()
    for attempt in range(3):
        driver = one_node.drive(job)
        _wait_for_cases(driver, tmp_path, 2 * attempt)
        driver.kill()
        driver.communicate()
        for path in tmp_path.glob("faulty/cases/*/result.json"):
            done.setdefault(path, path.stat().st_mtime_ns)
    driven(one_node, job)
    assert outcome(tmp_path) == outcome(whole)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        runs = database.execute("select name from runs").fetchall()
    assert len(set(runs)) == len(runs) == 1 + 2 * 8


def _wait_for_cases(driver: Any, storage: Path, number: int) -> None:
    """Wait until a number of cases are finished and the next ones train."""
    for line in iter(driver.stdout.readline, ""):
        finished = len(list(storage.glob("faulty/cases/*/result.json")))
        if finished >= number and ("search " in line or "warmup " in line) and " loss " in line:
            return
    raise AssertionError(f"the driver ended before {number} cases were finished")


@pytest.mark.long
def test_a_search_that_falls_behind_other_seeds_ends_early_and_stays_so(
    one_node: Rig, boards: dict[str, Any], tmp_path: Path
) -> None:
    sections: dict[str, Any] = {
        "cases": [{"target": "control", "budgets_ms": BUDGETS[:1]}],
        "search": {**SWEEP["search"], "epochs": 3, "hold_epochs": 0},
        "asha": {"first_epoch": 1, "reduction": 8},
        "seeds": [0, 1, 2],
        "retrain": None,
        "cluster": {"workers": 1},  # one at a time, so that the order of scores is known
    }
    job = sweep_file(tmp_path, boards, **sections)
    said = driven(one_node, job)
    stopped = [line for line in said.splitlines() if line.startswith("stopped early: control-")]
    assert len(stopped) >= 1
    assert len(searched(tmp_path)) == 3 - len(stopped)
    assert last_run(tmp_path)["steps"]["search"] < 3 * 3 * EPOCH
    again = driven(one_node, job)
    assert "nothing to train" in again
    assert [line for line in again.splitlines() if line.startswith("stopped early: ")] == stopped
