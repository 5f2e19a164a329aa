"""Random search as a baseline: as many networks as the search costs, also when resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from nas_core.architecture import Architecture, Model
from nas_core.derive import BudgetError
from orchestration.config.job import Job
from orchestration.config.loading import SpecError
from orchestration.data.dataset import Dataset
from orchestration.latency.network import Measured
from orchestration.planning.case import Case
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import make_plan
from orchestration.reports.plan import plan_lines
from orchestration.stages import random_search
from orchestration.stages.candidate import Candidate
from orchestration.stages.context import WorkerContext
from orchestration.stages.find import find_network
from orchestration.stages.network_log import from_values, to_values
from orchestration.stages.random_search import TrainedNetwork, _first_within, best_random
from orchestration.stages.result import result_of
from tests.support.latency_tables import by_kernel, table_of
from tests.support.worker_context import Reports, context_of, digits, tiny_job

CASES = [{"target": "mobile", "budgets_ms": ["110%"]}]
NAME = "mobile-random-0.088ms"


Finished = tuple[WorkerContext, Candidate, Reports, list[Model]]
"""Context of a case, its network, its reports and the networks that were measured."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    return Reports(monkeypatch)


def record_measured(patch: pytest.MonkeyPatch) -> list[Model]:
    """Record of measured networks; each takes 0.05 ms, which is within the budget."""
    seen: list[Model] = []

    def measure(_context: WorkerContext, model: Model, _budget_ms: float) -> Measured:
        seen.append(model)
        return Measured(0.05, 0.01, 1.0)

    patch.setattr(random_search, "measured_together", measure)
    return seen


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    record_measured(monkeypatch)


def job_with_controls(storage: Path, **sections: Any) -> Job:
    return tiny_job(storage, CASES, controls=True, **sections)


def context(dataset: Dataset, storage: Path, **sections: Any) -> WorkerContext:
    return context_of(job_with_controls(storage, **sections), dataset, case=NAME)


def best_of(item: WorkerContext) -> Any:
    return best_random(item, item.task.case)


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A case of four random networks."""
    one = context(dataset, tmp_path_factory.mktemp("case"))
    with pytest.MonkeyPatch.context() as patch:
        reports, seen = Reports(patch), record_measured(patch)
        return one, find_network(one, one.task.case), reports, seen


def cases(storage: Path, **sections: Any) -> list[Case]:
    plan = make_plan(job_with_controls(storage, **sections))
    return cases_of(plan, {"mobile": table_of(plan.space, by_kernel)})


# The stage


def test_as_many_networks_are_trained_as_the_search_costs(finished: Finished) -> None:
    # One epoch of warm-up and two of search cost three of one network, updates about one more.
    _, result, reports, _ = finished
    number = result.search["random"]["networks"]
    assert number == 4
    assert [(network["epoch"], network["epochs"]) for network in reports.networks] == [
        (i, number) for i in range(number)
    ]
    assert {network["phase"] for network in reports.networks} == {"random"}


@pytest.mark.slow
def test_where_a_training_costs_more_than_the_search_one_network_is_trained(
    dataset: Dataset, tmp_path: Path, reports: Reports
) -> None:
    result = best_of(context(dataset, tmp_path, retrain={"epochs": 9, "batch_size": 128}))
    assert result.search["random"]["networks"] == 1


@pytest.mark.slow
def test_the_most_accurate_on_the_architecture_part_is_taken_and_measured(
    finished: Finished,
) -> None:
    one, result, reports, measured = finished
    top = max(reports.networks, key=lambda network: network["top1"])
    best = result.search["random"]["best"]
    assert best[0]["accuracy"] == top["top1"]
    assert [n["accuracy"] for n in best] == sorted((n["accuracy"] for n in best), reverse=True)
    assert result.model == Architecture.from_path(one.space, list(best[0]["path"]))
    assert list(result.model.ops) == best[0]["ops"]
    assert measured == [result.model]
    assert result.measured_ms == 0.05


def test_one_that_is_measured_over_the_budget_gives_way_to_the_next(
    dataset: Dataset, tmp_path: Path
) -> None:
    one = context(dataset, tmp_path)
    better, faster = (Architecture.uniform(one.space, f"mbconv_k{k}_e6") for k in (5, 3))
    times = {name: one.table.latency_ms(net) for name, net in (("b", better), ("f", faster))}
    assert _first_within([better, faster], one.table, times["b"]) == better
    corrected = one.table.through(better, 1.2 * times["b"])
    assert _first_within([better, faster], corrected, times["b"]) == faster
    with pytest.raises(BudgetError):
        _first_within([better, faster], corrected, times["f"])


@pytest.mark.slow
def test_all_of_them_are_at_the_latency_of_the_budget(
    dataset: Dataset, tmp_path: Path, reports: Reports
) -> None:
    # Networks take 0.04, 0.06, 0.07, 0.08, ... ms: at 0.08 ms some are in the window.
    job = tiny_job(tmp_path, [{"target": "mobile", "budgets_ms": ["101%"]}], controls=True)
    best_of(context_of(job, dataset, case="mobile-random-0.0808ms"))
    taken = [network["latency_ms"] for network in reports.networks]
    assert taken == pytest.approx([0.08] * len(taken))


@pytest.mark.slow
def test_a_case_that_was_stopped_goes_on_with_the_next_network(
    dataset: Dataset, tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = best_of(context(dataset, tmp_path / "whole"))
    one = context(dataset, tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(random_search, "_report", die_after(2))
        with pytest.raises(KeyboardInterrupt):
            best_of(one)
    reports.networks.clear()
    assert without_clock(best_of(one)) == without_clock(whole)
    assert [network["epoch"] for network in reports.networks] == [2, 3]


def die_after(networks: int) -> Any:
    def report(_work: Any, _case: Case, done: list[Any]) -> None:
        if len(done) == networks:
            raise KeyboardInterrupt

    return report


def without_clock(found: Any) -> Any:
    facts = found.search["random"]
    best = [{k: v for k, v in item.items() if k != "seconds"} for item in facts["best"]]
    return replace(found, search={"random": {**facts, "best": best, "seconds": None}})


@pytest.mark.slow
def test_networks_of_another_case_do_not_count(
    dataset: Dataset, tmp_path: Path, reports: Reports
) -> None:
    one = context(dataset, tmp_path)
    values = {"path": [0, 0], "latency_ms": 0.08, "accuracy": 1.0, "loss": 0.0, "seconds": 1.0}
    foreign = {"format": "random-networks/1", "key": "another", "networks": [values]}
    one.storage.write_json(f"{one.task.case.folder}/random.json", foreign)
    best_of(one)
    assert len(reports.networks) == 4


def test_a_loss_that_is_no_number_is_kept_and_read_back() -> None:
    values = {"path": [0, 1], "latency_ms": 0.1, "accuracy": 0.1, "loss": None, "seconds": 2.0}
    assert to_values(TrainedNetwork(**from_values(values))) == values


def test_the_result_says_of_how_many_it_is_the_best(finished: Finished) -> None:
    one, result, _, _ = finished
    values = result_of(one, one.task.case, result, {"top1": 0.9})
    assert (values["kind"], values["strategy"], values["budget"]) == ("random", None, "110%")
    assert values["random"]["networks"] == 4


def test_networks_that_are_in_storage_are_not_trained_again(
    finished: Finished, reports: Reports
) -> None:
    find_network(finished[0], finished[0].task.case)
    assert reports.networks == []


# Its case


def test_every_search_has_its_random_networks_behind_it(tmp_path: Path) -> None:
    names = [case.name for case in cases(tmp_path, seeds=[0, 1])]
    assert names == [
        *("mobile-reference", "mobile-0.088ms", NAME),
        *("mobile-reference-seed1", "mobile-0.088ms-seed1", f"{NAME}-seed1"),
    ]


def test_without_controls_there_are_none(tmp_path: Path) -> None:
    plan = make_plan(tiny_job(tmp_path, CASES))
    result = cases_of(plan, {"mobile": table_of(plan.space, by_kernel)})
    assert [case.kind for case in result] == ["reference", "search"]


@pytest.mark.parametrize(
    ("settings", "is_same"),
    [({"alpha_lr": 0.2}, True), ({"rho": 1.0}, True), ({"epochs": 3}, False)],
)
def test_they_are_drawn_again_only_where_the_search_costs_something_else(
    tmp_path: Path, settings: dict[str, Any], is_same: bool
) -> None:
    before, after = cases(tmp_path)[2], cases(tmp_path, search=settings)[2]
    assert (before.key == after.key) is is_same
    assert after.kind == "random"


def test_controls_are_refused_where_nothing_is_retrained(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="controls is True; expected false, or a retrain section"):
        job_with_controls(tmp_path, retrain=None)


def test_the_plan_says_what_they_are(tmp_path: Path) -> None:
    plan, storage = make_plan(job_with_controls(tmp_path)), Storage(str(tmp_path))
    tables = {"mobile": table_of(plan.space, by_kernel)}
    lines = plan_lines(plan, tables, cases_of(plan, tables), storage.sub("tiny"), "one")
    assert any(
        line.startswith(f"case     {NAME}: budget 0.088 ms (110% of the reference), the best of")
        for line in lines
    )
