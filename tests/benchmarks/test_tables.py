"""Tables of the evidence, from made-up lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import tables
from tests.benchmarks.evidence import markdown

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
        text = "".join(json.dumps(one) + "\n" for one in lines)
        (tmp_path / f"evidence_networks__a-cpu__torch-1__{day}.json").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("curve", "| cpu: mobilenet_v2_0.35 |  | 0.3 | 82.5 ± 0.4 | 5 |  |"),
        ("curve", "| cpu, budget 60% | 0.21 | 0.2 | 96.0 ± 0.2 | 5 | 3 (2 to 4), of 4 seeds |"),
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
    _, _, table = tables.TABLES[name]
    assert row in re.sub(r"\[(.*?)\]\(.*?\)", r"\1", table()).splitlines()


def test_every_row_is_linked_to_its_line() -> None:
    _, _, table = tables.TABLES["cost"]
    place = "results/evidence_networks__a-cpu__torch-1__2026-01-02.json#L7"
    assert f"| [warm-up, once per sweep and seed]({place}) | 900 |  | 100.0 | 4.0 |" in table()


def test_the_claim_is_made_of_measured_figures() -> None:
    _, _, claim = tables.TABLES["claim"]
    assert "MobileNetV2 takes [1.8 (1.4 to 2.2)]" in claim()
    assert "5 seeds of search and training" in claim()


def test_it_is_said_in_how_many_pairs_a_targets_own_networks_are_faster() -> None:
    said = tables.preferred()
    assert said.startswith(
        "In 1 of 2 pairs the networks that were searched for a target are faster"
    )
    assert "; in 1 they cannot be told apart (the mean is above 1 in 0 of them). " in said


def test_it_is_said_what_found_networks_are_ahead_of_random_ones(folder: Path) -> None:
    row = {
        "what": "mobile, budget 50%: random networks as slow as what was found",
        "top1": 93.0,
        "deviation": 0.5,
        "n": 10,
        "found": 95.0,
        "points that the found ones are ahead": [2.0, 1.0, 3.0],
        "seeds": 5,
    }
    (folder / "evidence_random__a-cpu__torch-1__2026-01-01.json").write_text(json.dumps(row))
    assert "[2 (1 to 3)](results/evidence_random" in tables.beyond_chance()
    assert ") points within 50% of the reference's latency" in tables.beyond_chance()
    assert " | 93.0 ± 0.5 | 10 | 95.0 | 2 (1 to 3) | 5 |\n" in tables.random_table()


def test_blocks_of_a_page_are_replaced_and_nothing_else() -> None:
    text = "a\n<!-- evidence: cost -->\nold\n<!-- end -->\nb\n"
    made = tables.with_tables(text)
    assert "old" not in made
    assert made.startswith("a\n<!-- evidence: cost -->\n| ")
    assert "](tests/benchmarks/results/evidence_networks" in made
    assert made.endswith(" |\n<!-- end -->\nb\n")
    assert tables.with_tables(made) == made


def test_a_block_whose_part_was_not_made_stays() -> None:
    text = "<!-- evidence: ablations -->\nold\n<!-- end -->\n"
    assert tables.with_tables(text) == text


def test_the_page_of_results_says_what_was_not_made() -> None:
    text = tables.results_page()
    assert "results/evidence_networks__a-cpu__torch-1__2026-01-02.json" in text
    missing = (
        "random",
        "random_table",
        "mobile",
        "longer",
        "longer_curve",
        "ablations",
        "traffic",
        "steps",
    )
    assert text.count("not made yet") == len(missing)
