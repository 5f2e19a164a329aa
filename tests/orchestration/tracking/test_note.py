"""The description of a job's run, which MLflow truncates after 8,000 characters."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.tracking.note import LONGEST, job_note
from tests.support.job_folder import baseline_result, result

LINKS = ("#/compare-runs?runs=x", "#/experiments/1/runs?viewStateShareKey=proxyless")


def note(results: list[dict[str, Any]], links: tuple[str, str] = LINKS, **facts: Any) -> str:
    return job_note({"name": "sweep", **facts}, results, *links)


def test_it_sums_up_what_there_is() -> None:
    text = note([result("mobile-0.31ms"), result("mobile-reference"), baseline_result("mnasnet")])
    first = text.splitlines()[0]
    assert first == "**sweep**: 1 network searched for mobile, 2 to compare with."


def test_it_says_what_the_job_took_and_how_right_its_plan_was() -> None:
    runs = [{"wall_s": 60.0}, {"wall_s": 30.0, "estimate_s": 40.0, "estimate_error": 1 / 3}]
    text = note([result("mobile-0.31ms")], runs=runs)
    assert "It took 90 s; the plan estimated 40 s (+33%)." in text.splitlines()[0]


@pytest.mark.parametrize("count", [30, 60, 300])
def test_a_long_one_keeps_its_link_and_whole_rows(count: int) -> None:
    results = [result(f"mobile-0.{n:03d}ms-quite-a-long-name") for n in range(count)]
    text = note(results)
    assert len(text) <= LONGEST
    assert f"({LINKS[0]})" in text
    rows = [line for line in text.splitlines() if line.startswith("|") and "mobile-" in line]
    assert len(rows) >= 8
    assert all(row.count("|") == 8 for row in rows)
    if len(rows) < count:
        assert f"{count - len(rows)} more are in the report." in text


def test_too_many_to_compare_are_listed() -> None:
    text = note([result("mobile-0.31ms")], ("#/compare-runs?" + 3000 * "x", LINKS[1]))
    assert f"[All networks]({LINKS[1]})" in text
    assert "xxx" not in text


def test_reasons_do_not_break_the_page() -> None:
    text = note([result("mobile-0.31ms")], failed={"cpu-1ms": "a\nb | c" + 900 * "x"})
    (line,) = [line for line in text.splitlines() if "cpu-1ms failed" in line]
    assert "a b \\| c" in line
    assert len(line) < 400
