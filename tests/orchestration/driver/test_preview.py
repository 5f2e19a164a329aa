"""Plans of jobs without a search, and with targets that are not measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.published.pixel1 import table
from nas_core.space import proxyless_imagenet, proxyless_small
from orchestration.config.loading import SpecError, load_job
from orchestration.planning.case import Case
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import Plan, make_plan
from orchestration.reports.plan import plan_lines
from tests.conftest import REPOSITORY
from tests.support.latency_tables import by_kernel, table_of

PIXEL = ["space.name=proxyless_imagenet", "data.resolution=224"]


def planned(job_file: Path, entries: str, *overrides: str) -> Plan:
    return make_plan(load_job(job_file, [f"cases={entries}", "retrain.epochs=1", *overrides]))


def cases(plan: Plan) -> list[Case]:
    measured = {"mobile": table_of(plan.space, by_kernel)}
    return cases_of(plan, measured | plan.shipped)


def network(folder: Path, name: str, op: str = "mbconv_k3_e6") -> str:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(Architecture.uniform(proxyless_small(), op).to_json())
    return f"{{target: mobile, architecture: {path}}}"


def test_every_kind_of_case_has_its_name_behind_one_reference(
    job_file: Path, tmp_path: Path
) -> None:
    entries = (
        "[{target: mobile, baseline: mobilenet_v2}, {target: mobile, budgets_ms: ['80%']}, "
        f"{{target: mobile, architecture: proxyless_mobile}}, {network(tmp_path, 'my.json')}]"
    )
    assert [(case.name, case.kind) for case in cases(planned(job_file, entries))] == [
        ("mobile-reference", "reference"),
        ("mobile-mobilenet_v2", "baseline"),
        ("mobile-0.16ms", "search"),
        ("mobile-proxyless_mobile", "given"),
        ("mobile-my", "given"),
    ]


def test_a_given_network_is_recognised_by_its_content(job_file: Path, tmp_path: Path) -> None:
    def key(name: str, op: str) -> str:
        return cases(planned(job_file, f"[{network(tmp_path, name, op)}]"))[1].key

    first = key("a.json", "mbconv_k3_e6")
    assert key("b.json", "mbconv_k3_e6") == first
    assert key("a.json", "mbconv_k5_e6") != first


def test_a_network_that_is_not_searched_does_not_depend_on_the_search(job_file: Path) -> None:
    def key(*overrides: str) -> str:
        plan = planned(job_file, "[{target: mobile, baseline: mnasnet}]", *overrides)
        return cases(plan)[1].key

    assert key("search.epochs=7") == key()
    assert key("retrain.lr=0.01") != key()
    assert key("data.resolution=16") != key()


def test_two_cases_of_one_name_are_refused(job_file: Path, tmp_path: Path) -> None:
    entries = f"[{network(tmp_path, 'a/x.json')}, {network(tmp_path, 'b/x.json')}]"
    with pytest.raises(SpecError, match=r"cases\[1\].architecture makes a second 'mobile-x'"):
        cases(planned(job_file, entries))


def test_a_budget_in_percent_that_equals_another_is_refused(job_file: Path) -> None:
    entries = "[{target: mobile, budgets_ms: [0.16]}, {target: mobile, budgets_ms: ['80%']}]"
    with pytest.raises(SpecError, match=r"cases\[1\].budgets_ms\[0\] makes a second 'mobile-0.16"):
        cases(planned(job_file, entries))


def test_cases_without_budgets_are_planned_before_the_table_is_measured(
    job_file: Path, tmp_path: Path
) -> None:
    entries = "[{target: mobile, baseline: mnasnet}, {target: mobile, budgets_ms: ['80%']}]"
    plan = planned(job_file, entries)
    result = cases_of(plan, {})
    assert [case.name for case in result] == ["mobile-reference", "mobile-mnasnet"]
    text = "\n".join(plan_lines(plan, {}, result, Storage(str(tmp_path)), "1 per case"))
    assert "mobile-mnasnet: a baseline, no search; to do" in text
    assert "mobile 80%; in milliseconds once the table is measured" in text


def test_a_plan_without_a_search_has_no_line_about_one(job_file: Path, tmp_path: Path) -> None:
    plan = planned(job_file, "[{target: mobile, baseline: mnasnet}]")
    lines = plan_lines(plan, {}, cases(plan), Storage(str(tmp_path)), "1 per case")
    assert not [line for line in lines if line.startswith("search")]


def test_more_networks_than_the_space_has_cannot_be_ranked(job_file: Path) -> None:
    entries = "[{target: mobile, budgets_ms: ['80%']}]"
    text = "search.ranking_networks is 80000; expected 74088 or fewer"
    with pytest.raises(SpecError, match=text):
        planned(job_file, entries, "search.ranking_networks=80000")


def test_a_logarithm_of_less_than_a_millisecond_is_refused(job_file: Path) -> None:
    plan = planned(job_file, "[{target: mobile, budgets_ms: [0.2]}]", "search.objective=mul_log")
    with pytest.raises(SpecError, match=r"cases\[0\].budgets_ms\[0\]: objective 'mul_log' takes"):
        cases(plan)


def test_the_pixel_1_is_planned_by_its_table_alone(job_file: Path, tmp_path: Path) -> None:
    entries = (
        "[{target: pixel1, budgets_ms: [80.0, '60%']}, "
        "{target: pixel1, architecture: proxyless_mobile}]"
    )
    plan = planned(job_file, entries, *PIXEL)
    reference_ms = table(proxyless_imagenet()).reference_ms
    assert reference_ms is not None
    names = [case.name for case in cases_of(plan, plan.shipped)]
    percent = f"pixel1-{0.6 * reference_ms:.4g}ms"
    assert names == ["pixel1-reference", "pixel1-80ms", percent, "pixel1-proxyless_mobile"]
    text = "\n".join(plan_lines(plan, plan.shipped, [], Storage(str(tmp_path)), "1 per case"))
    assert "latency table ships with the project, nothing is measured" in text


@pytest.mark.parametrize(
    ("entries", "overrides", "complaint"),
    [
        ("baseline: mnasnet", PIXEL, r"cases\[0\].baseline: nothing is measured on 'pixel1'"),
        (
            "architecture: proxyless_cpu",
            PIXEL,
            r"cases\[0\].architecture: nothing is measured on 'pixel1', .* no entry for 'stem'",
        ),
        ("budgets_ms: ['80%']", [], "target 'pixel1': .* hold for proxyless_imagenet at 224"),
        (
            "budgets_ms: ['80%']",
            [PIXEL[0], "data.resolution=192"],
            "target 'pixel1': resolution of 'proxyless_imagenet' is 192",
        ),
    ],
)
def test_what_the_pixel_1_table_does_not_cover_is_refused(
    job_file: Path, entries: str, overrides: list[str], complaint: str
) -> None:
    with pytest.raises(SpecError, match=complaint):
        planned(job_file, f"[{{target: pixel1, {entries}}}]", *overrides)


def test_a_plan_is_made_without_torch(job_file: Path) -> None:
    entries = (
        "[{target: pixel1, budgets_ms: ['80%']}, {target: mobile, baseline: mnasnet}, "
        "{target: mobile, architecture: proxyless_gpu}]"
    )
    code = (
        "import sys; from orchestration.planning.plan import *\n"
        "from orchestration.config.loading import load_job\n"
        f"job = load_job({str(job_file)!r}, {[f'cases={entries}', *PIXEL]!r})\n"
        "from orchestration.planning.cases import cases_of\n"
        "plan = make_plan(job); cases_of(plan, plan.shipped)\n"
        "print(sorted({'torch', 'torchvision', 'ray'} & set(sys.modules)))"
    )
    words = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"
