"""Plans: budgets in milliseconds, feasibility, and what a change of the job redoes."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from cluster.storage import Storage
from orchestration.config.loading import SpecError, load_job
from orchestration.latency.table_store import stored_table
from orchestration.planning.budgets import budget_in_ms
from orchestration.planning.case import Case
from orchestration.planning.cases import cases_of
from orchestration.planning.content_keys import search_parts, table_key
from orchestration.planning.plan import Plan, make_plan
from orchestration.reports.plan import plan_lines
from orchestration.state.results_on_disk import is_done
from tests.support.latency_tables import by_kernel, table_of


def planned(job_file: Path, *overrides: str) -> Plan:
    return make_plan(load_job(job_file, overrides))


def cases(plan: Plan) -> list[Case]:
    return cases_of(plan, {"mobile": table_of(plan.space, by_kernel), **plan.shipped})


def test_a_percentage_is_of_the_reference_network(job_file: Path) -> None:
    plan = planned(job_file)
    table = table_of(plan.space, by_kernel)
    assert table.reference_ms == pytest.approx(6 * 0.03 + 0.02)  # six k3 blocks, stem and head
    assert budget_in_ms("80%", table) == pytest.approx(0.16)
    assert budget_in_ms(0.5, table) == 0.5


def test_the_reference_network_is_a_case_where_networks_are_trained(job_file: Path) -> None:
    assert [case.kind for case in cases(planned(job_file))] == ["search"]
    result = cases(planned(job_file, "retrain.epochs=1"))
    assert [(case.name, case.kind) for case in result] == [
        ("mobile-reference", "reference"),
        ("mobile-0.16ms", "search"),
    ]


@pytest.mark.parametrize("budget", ["0.01", "99.0", "'1%'", "'900%'"])
def test_a_budget_outside_the_space_names_both_ends(job_file: Path, budget: str) -> None:
    # Fastest: three sites that change the shape (k3), stem and head; slowest: six k7.
    text = r"cases\[0\].budgets_ms\[0\] is .* take from 0.11 to 0.44 ms on 'mobile on host"
    with pytest.raises(SpecError, match=text):
        cases(planned(job_file, f"cases.0.budgets_ms=[{budget}]"))


def test_two_budgets_are_two_cases(job_file: Path) -> None:
    result = cases(planned(job_file, "cases.0.budgets_ms=[0.2, '80%']"))
    assert [case.name for case in result] == ["mobile-0.2ms", "mobile-0.16ms"]
    assert len({case.key for case in result}) == 2


def key_of(job_file: Path, *overrides: str) -> str:
    return cases(planned(job_file, "retrain.epochs=1", *overrides))[1].key


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "search.epochs=7",
        "retrain.lr=0.01",
        "data.resolution=16",
        "data.test_share=0.3",
        "cases.0.budgets_ms=[0.2]",
        "space.ops=[mbconv_k3_e6, mbconv_k5_e6, skip]",
        "measure.rounds=9",
    ],
)
def test_what_a_result_depends_on_is_in_its_key(job_file: Path, override: str) -> None:
    assert key_of(job_file, override) != key_of(job_file)


@pytest.mark.parametrize(
    "override", ["name=other", "cluster.workers=2", "record.experiment=x", "storage=/tmp/x"]
)
def test_what_a_result_does_not_depend_on_is_not(job_file: Path, override: str) -> None:
    assert key_of(job_file, override) == key_of(job_file)


def test_the_reference_network_does_not_depend_on_the_search(job_file: Path) -> None:
    def reference(*overrides: str) -> str:
        return cases(planned(job_file, "retrain.epochs=1", *overrides))[0].key

    assert reference("search.epochs=7", "cases.0.budgets_ms=[0.2]") == reference()
    assert reference("retrain.lr=0.01") != reference()


def test_a_table_belongs_to_its_space(job_file: Path) -> None:
    plan, other = planned(job_file), planned(job_file, "data.resolution=16")
    target = plan.targets[0]
    keys = {table_key(p.space, target, p.job.measure) for p in (plan, other)}
    assert len(keys) == 2
    assert plan.table_keys == {"mobile": table_key(plan.space, target, plan.job.measure)}


def test_equal_budgets_said_differently_are_the_same_case(job_file: Path) -> None:
    plan = planned(job_file)
    table = plan.table_keys["mobile"]
    said = search_parts(plan.job, plan.data, plan.space, table, 0.16, 0.16)
    assert said == search_parts(plan.job, plan.data, plan.space, table, 16 / 100, 0.16)


def test_only_the_result_of_exactly_this_case_counts(job_file: Path, tmp_path: Path) -> None:
    case, folder = cases(planned(job_file))[0], Storage(str(tmp_path / "job"))
    assert not is_done(case, folder)
    folder.write_json(f"cases/{case.name}/result.json", {"key": "another"})
    assert not is_done(case, folder)
    folder.write_json(f"cases/{case.name}/result.json", {"key": case.key})
    assert is_done(case, folder)


def test_a_table_is_read_back_as_it_was_written(job_file: Path, tmp_path: Path) -> None:
    storage, table = Storage(str(tmp_path)), table_of(planned(job_file).space, by_kernel)
    assert stored_table(storage, "abc") is None
    storage.write_json("tables/abc.json", table.to_dict())
    assert stored_table(storage, "abc") == table


def test_a_table_of_another_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_json("tables/abc.json", {"format": "latency-table/9"})
    with pytest.raises(SpecError, match=r"abc.json: not a latency table .* remove it to measure"):
        stored_table(storage, "abc")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["search.epochs=1", "search.hold_epochs=0", "search.batch_size=1348"],
            r"search.epochs is 1; with 1 steps an epoch strategy 'two_path' makes 0 updates of the "
            r"1 or more that it needs; raise it, or lower batch_size, alpha_every, hold_epochs",
        ),
        (
            ["search.strategy=reinforce", "search.epochs=2", "search.batch_size=256"],
            r"strategy 'reinforce' makes 1 updates of the 2 or more that it needs",
        ),
        (
            ["search.strategy=evolution", "search.epochs=10", "search.batch_size=64"],
            r"strategy 'evolution' makes 42 updates of the 101 or more .* hold_epochs or populati",
        ),
    ],
)
def test_a_search_too_short_to_find_anything_is_refused(
    job_file: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        planned(job_file, *overrides)


def test_of_several_seeds_the_plan_says_what_differs(job_file: Path, tmp_path: Path) -> None:
    plan = planned(job_file, "retrain.epochs=3", "seeds=[3, 4, 5]")
    tables = {"mobile": table_of(plan.space, by_kernel)}
    result, folder = cases_of(plan, tables), Storage(str(tmp_path / "job"))
    done = next(case for case in result if case.name == "mobile-reference-seed4")
    folder.write_json(f"{done.folder}/result.json", {"key": done.key})
    lines = plan_lines(plan, tables, result, folder, "1 per case")
    assert [line.split(":")[0] for line in lines if line.startswith("case ")] == [
        "case     mobile-reference-seed3",
        "case     mobile-0.16ms-seed3",
        "case     mobile-reference-seed4",
        "case     3 more of the other seeds",
    ]


def test_the_plan_says_what_will_happen(job_file: Path, tmp_path: Path) -> None:
    plan = planned(job_file, "retrain.epochs=3", "search.batch_size=64")
    tables = {"mobile": table_of(plan.space, by_kernel)}
    result = cases_of(plan, tables)
    folder = Storage(str(tmp_path / "job"))
    folder.write_json("cases/mobile-reference/result.json", {"key": result[0].key})
    text = "\n".join(plan_lines(plan, tables, result, folder, "1 per case"))
    for words in (
        "1797 images of 1x32x32, 10 classes",
        "6 sites, 74,088 networks, supernet 0.50 M parameters",
        "mobile on host x86-64 (XNNPACK), 1 thread, batch 1; this host stands in for 'mobile'",
        "mobile-reference: the network to beat; done",
        "mobile-0.16ms: budget 0.16 ms (80% of the reference); ",
        "of networks keep it (fastest 0.11, median ",
        "slowest 0.44 ms); to do",
        "40 warm-up + 120 epochs",
        "3 epochs of",
    ):
        assert words in text


def test_a_runtime_that_is_not_installed_is_refused_with_the_extra_that_brings_it(
    job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "executorch":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(SpecError, match=r"target 'mobile': executorch .* the extra 'executorch'"):
        planned(job_file)
