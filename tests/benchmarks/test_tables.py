"""Tables of the evidence, from made-up lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import tables
from tests.benchmarks.evidence import markdown, sentences
from tests.conftest import REPOSITORY

NETWORKS: list[dict[str, Any]] = [
    {"what": "cpu: mobilenet_v2_0.35", "ms": 0.3, "top1": 82.51, "deviation": 0.4, "n": 5},
    {
        "what": "cpu, budget 60%: found by search",
        "budget_ms": 0.21,
        "ms": 0.2,
        "top1": 96.0,
        "deviation": 0.2,
        "n": 5,
        "points over MobileNetV2 at its latency": [3.0, 2.0, 4.0],
        "covered": 4,
    },
    {
        "what": "cpu: times faster than MobileNetV2 at the highest accuracy of both",
        "top1": 93.0,
        "times": [2.0, 1.5, 2.5],
        "n": 5,
        "points ahead": 1.5,
        "their fastest is better still": 0,
    },
    {
        "what": "searched for cpu, budget 60%",
        "top1": 96.0,
        "ms": {"cpu": 0.2, "mobile": 0.5},
        "n": 5,
    },
    {
        "what": "on cpu, at equal accuracy: searched for mobile / searched for cpu",
        "top1": 95.0,
        "times": [1.2, 1.1, 1.3],
        "n": 5,
        "by table": False,
        "their fastest is better still": 2,
    },
    {
        "what": "on mobile, at equal accuracy: searched for cpu / searched for mobile",
        "top1": 95.0,
        "times": [1.0, 0.9, 1.1],
        "n": 5,
        "by table": True,
        "their fastest is better still": 0,
    },
    {
        "what": "warm-up, once per sweep and seed",
        "steps": 900,
        "seconds": 100.0,
        "trainings": 4.0,
    },
    {
        "what": "cpu: times faster than MobileNetV2 one point below the highest accuracy of both",
        "top1": 92.0,
        "times": [1.8, 1.4, 2.2],
        "n": 5,
        "points ahead": 2.5,
        "their fastest is better still": 1,
        "device": "a processor",
    },
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(markdown, "FOLDER", tmp_path)
    for day, lines in (("2026-01-02", NETWORKS), ("2026-01-01", [])):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"evidence_networks__a-cpu__torch-1__{day}.json").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("curve", "| cpu: mobilenet_v2_0.35 |  | 0.3 | 82.5 ± 0.4 | 5 |  |"),
        ("curve", "| cpu, budget 60% | 0.21 | 0.2 | 96.0 ± 0.2 | 5 | 3 (2 to 4), from 4 seeds |"),
        (
            "speed",
            "| cpu: times faster than MobileNetV2 at the highest accuracy of both | 93.0 | 2 (1.5 "
            "to 2.5) | 5 | 1.5 | 0 |",
        ),
        ("matrix", "| searched for cpu, budget 60% | 96.0 | 0.2 | 0.5 | 5 |"),
        (
            "preference",
            "| on cpu, at equal accuracy: searched for mobile / searched for cpu | 95.0 | 1.2 (1.1 "
            "to 1.3) | 5 | 2 |",
        ),
        ("cost", "| warm-up, once per sweep and seed | 900 |  | 100.0 | 4.0 |"),
    ],
)
def test_a_table_shows_the_newest_lines(name: str, row: str) -> None:
    _, table = tables.TABLES[name]
    assert row in unlinked(table()).splitlines()


def test_every_row_is_linked_to_its_line() -> None:
    _, table = tables.TABLES["cost"]
    place = "results/evidence_networks__a-cpu__torch-1__2026-01-02.json#L7"
    assert f"| [warm-up, once per sweep and seed]({place}) | 900 |  | 100.0 | 4.0 |" in table()


def test_the_claim_is_made_of_measured_figures() -> None:
    assert "MobileNetV2 takes [1.8 (1.4 to 2.2)]" in tables.claim()
    assert "5 seeds of search and training" in tables.claim()


def test_it_is_said_in_how_many_pairs_a_targets_own_networks_are_faster() -> None:
    said = tables.preferred()
    assert said.startswith(
        "At equal accuracy, networks searched for a target are faster on it than networks searched "
        "for another target in 1 of 2 comparisons"
    )
    assert "; in 1 the interval includes 1 (the mean is above 1 in 0 of them). " in said


def random_row(target: str, lead: list[float]) -> dict[str, Any]:
    return {
        "what": f"{target}, budget 50%: random networks as slow as what was found",
        "top1": 93.0,
        "deviation": 0.5,
        "n": 10,
        "found": 95.0,
        "points that the found ones are ahead": lead,
        "seeds": 5,
    }


def write(folder: Path, part: str, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"evidence_{part}__a-cpu__torch-1__2026-01-03.json").write_text(text)


def test_the_lead_over_random_networks_is_stated_with_its_interval(folder: Path) -> None:
    write(folder, "random", [random_row("mobile", [2.0, 1.0, 3.0])])
    assert "by [2 (1 to 3)](results/evidence_random" in tables.beyond_chance()
    assert ") points on `mobile` within 50% of the reference network" in tables.beyond_chance()
    assert " | 93.0 ± 0.5 | 10 | 95.0 | 2 (1 to 3) | 5 |\n" in tables.random_table()


def test_a_lead_whose_interval_includes_zero_is_not_called_one(folder: Path) -> None:
    write(
        folder, "random", [random_row("cpu", [1.2, 0.5, 2]), random_row("mobile", [0.8, -0.5, 2])]
    )
    cpu, mobile = unlinked(sentences.lead_over_random()).split(" and ")
    assert cpu.endswith("1.2 points on `cpu` (95 % interval 0.5 to 2.0)")
    assert mobile == (
        "0.8 points on `mobile` (95 % interval -0.5 to 2.0), which is not distinguishable from no "
        "lead.\n"
    )


def test_the_table_of_the_readme_has_accuracy_and_latency_of_both_targets(folder: Path) -> None:
    networks = [
        {"what": f"{target}{what}", "ms": ms, "top1": top1}
        for target, ms in (("cpu", 0.2), ("mobile", 0.3))
        for what, top1 in ((": mobilenet_v2_1.0", 91.0), (", budget 50%: found by search", 95.04))
    ]
    write(folder, "networks", networks)
    head, _, *rows = unlinked(tables.summary_table()).splitlines()
    assert head == "| Network | `cpu`: top-1 % | ms | `mobile`: top-1 % | ms |"
    assert rows == [  # without the rows of parts that were not made
        "| MobileNetV2, width 1.0 | 91.0 | 0.200 | 91.0 | 0.300 |",
        "| **Searched**, budget half the reference network's latency "
        "| 95.0 | 0.200 | 95.0 | 0.300 |",
    ]


def unlinked(text: str) -> str:
    return re.sub(r"\[(.*?)\]\(.*?\)", r"\1", text)


def test_blocks_of_a_page_are_replaced_and_nothing_else() -> None:
    text = "a\n<!-- evidence: cost -->\nold\n<!-- end -->\nb\n"
    for page, place in ((tables.README, "tests/benchmarks/results/"), (tables.RESULTS, "results/")):
        made = tables.with_tables(text, page)
        assert "old" not in made
        assert made.startswith("a\n<!-- evidence: cost -->\n| ")
        assert f"]({place}evidence_networks" in made
        assert made.endswith("\n<!-- end -->\nb\n")
        assert tables.with_tables(made, page) == made


def test_a_table_of_the_results_names_the_file_of_its_lines() -> None:
    text = "<!-- evidence: cost -->\n<!-- end -->\n"
    name = "evidence_networks__a-cpu__torch-1__2026-01-02.json"
    assert f"|\n\n[{name}](results/{name})\n<!-- end -->" in tables.with_tables(text)
    assert f"[{name}]" not in tables.with_tables(text, tables.README)


def test_a_block_whose_part_was_not_made_stays() -> None:
    text = "<!-- evidence: ablations -->\nold\n<!-- end -->\n"
    assert tables.with_tables(text) == text


def test_the_contents_are_the_headings_that_follow() -> None:
    before = "# Page\n\n## Contents\n\n<!-- contents -->\n"
    text = f"{before}old\n<!-- end -->\n\n## One, two\n\n### A `b`\n\n## C\n"
    lines = "- [One, two](#one-two)\n  - [A `b`](#a-b)\n- [C](#c)\n"
    assert tables.with_contents(text) == text.replace("old\n", lines)


def names_on(page: tables.Page) -> list[str]:
    return [name for _, name, _ in tables.BLOCK.findall(page.file.read_text())]


def test_the_results_hold_every_table_once_and_the_readme_its_own() -> None:
    assert sorted(names_on(tables.README)) == sorted(tables.README_TABLES)
    assert sorted(names_on(tables.RESULTS)) == sorted(tables.TABLES.keys() - tables.README_TABLES)


@pytest.mark.parametrize("page", [tables.RESULTS, tables.README], ids=lambda page: page.file.name)
def test_the_tables_of_a_page_show_the_lines_that_are_kept(
    page: tables.Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markdown, "FOLDER", REPOSITORY / "tests/benchmarks/results")
    assert page.file.read_text() == tables.updated(page)
