"""Findings about a search and its baselines, and about repeats with other seeds."""

from __future__ import annotations

from typing import Any

from orchestration.reports.findings import findings
from orchestration.reports.table import comparison_text
from tests.support.job_folder import baseline_result, result

CASE = result("mobile-0.31ms")
REFERENCE = result("mobile-reference")


def random_result(**changes: Any) -> dict[str, Any]:
    """The best of three random networks, for the budget of `CASE`."""
    facts = {"kind": "random", "strategy": None, "random": {"networks": 3}, "top1": 0.977}
    return result("mobile-0.31ms-random", **facts) | changes


def width(name: str, measured_ms: float, top1: float, **changes: Any) -> dict[str, Any]:
    return baseline_result(name, measured_ms=measured_ms, top1=top1, **changes)


def seed(number: int, values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The same case under another seed."""
    return {**values, "seed": number, "case": f"{values['case']}-seed{number}"} | changes


def rows_of(*results: dict[str, Any]) -> list[list[str]]:
    return [line.split() for line in comparison_text(results).splitlines() if line.strip()]


def test_a_search_that_is_more_accurate_beats_its_random_networks() -> None:
    # 98.1 % is 0.4 points above 97.7 %.
    assert findings([CASE, random_result()]) == [
        "mobile-0.31ms beats the best of 3 random networks by 0.4 points"
    ]


def test_a_search_that_is_less_accurate_is_said_to_be_below() -> None:
    assert findings([CASE, random_result(top1=0.984)]) == [
        "mobile-0.31ms is 0.3 points below the best of 3 random networks"
    ]


def test_equal_accuracy_beats_nobody() -> None:
    assert findings([CASE, random_result(top1=0.981)]) == [
        "mobile-0.31ms is level with the best of 3 random networks"
    ]


def test_random_networks_for_another_budget_are_no_control() -> None:
    assert findings([CASE, random_result(budget_ms=0.4)]) == []


def test_random_networks_on_another_target_are_no_control() -> None:
    assert findings([CASE, random_result(target="cpu", case="cpu-0.31ms-random")]) == []


def test_a_control_of_another_seed_is_not_compared() -> None:
    assert findings([CASE, seed(1, random_result())]) == []


def test_without_accuracies_nothing_is_said_of_controls() -> None:
    bare = {**CASE, "top1": None}
    assert findings([bare, random_result(), width("mobilenet_v2_0.35", 0.3, 0.9)]) == []


def test_a_search_is_compared_with_the_width_of_nearest_latency() -> None:
    # 0.312 ms is 20 % less than 0.39 ms and 160 % more than 0.12 ms; 98.1 % is 1.1 above 97.0 %.
    widths = [width("mobilenet_v2_0.35", 0.12, 0.96), width("mobilenet_v2_0.5", 0.39, 0.97)]
    assert findings([CASE, *widths]) == [
        "mobile-0.31ms beats mobilenet_v2_0.5 (0.390 ms) by 1.1 points, taking 20 % less time"
    ]


def test_other_baselines_are_no_controls() -> None:
    assert findings([CASE, width("mnasnet", 0.312, 0.9)]) == []


def test_random_networks_are_compared_with_a_search_alone() -> None:
    assert findings([REFERENCE, random_result()]) == []


def test_random_networks_are_named_with_their_number() -> None:
    rows = rows_of(CASE, random_result())
    assert rows[4][:5] == ["random", "(best", "of", "3)", "0.310"]


def test_random_networks_of_unknown_number_are_named_without_it() -> None:
    assert rows_of(CASE, random_result(random=None))[4][:2] == ["random", "0.310"]


def test_rows_show_their_seed_where_there_are_several() -> None:
    rows = rows_of(CASE, seed(1, CASE), REFERENCE, seed(1, REFERENCE))
    assert rows[1][:2] == ["network", "seed"]
    assert [row[0] for row in rows[3:5]] == ["mobile-0.31ms", "mobile-0.31ms"]
    assert [row[-9] for row in rows[3:7]] == ["0", "1", "0", "1"]


def test_one_seed_has_no_column_and_no_means() -> None:
    text = comparison_text([seed(1, CASE), seed(1, REFERENCE)])
    assert "\n  mobile-0.31ms-seed1 " in text
    assert "±" not in text
    assert " seed " not in text


def test_several_seeds_have_a_mean_and_a_spread_per_budget() -> None:
    # The mean of 98.1 and 97.7 is 97.9 and the sample standard deviation 0.4 / sqrt(2) = 0.28.
    other = seed(1, CASE, top1=0.977, measured_ms=0.308)
    lines = [line.strip() for line in comparison_text([CASE, other, REFERENCE]).splitlines()]
    means = lines[lines.index("mean ± standard deviation over seeds") :]
    rows = [line.split() for line in means if line.startswith(("mobile", "reference"))]
    assert rows[0] == [
        *("mobile-0.31ms", "0.310", "2"),
        *("0.309", "±", "0.000", "0.310", "±", "0.003", "97.9", "±", "0.3"),
    ]
    assert rows[1] == ["reference", "(to", "beat)", "-", "1", "0.380", "0.380", "98.5"]


def test_over_seeds_the_mean_of_the_differences_is_told() -> None:
    # Seed by seed: 98.1 - 97.7 = 0.4 and 97.9 - 97.7 = 0.2; 18 % and 20 % below 0.380 ms.
    cases = [CASE, seed(1, CASE, top1=0.979, measured_ms=0.304)]
    controls = [random_result(), seed(1, random_result())]
    references = [REFERENCE, seed(1, REFERENCE)]
    actual = findings([*references, *cases, *controls])
    assert actual[0] == (
        "mobile-0.31ms takes 19 % less time than the reference, top-1 0.5 points lower "
        "(mean of 2 seeds)"
    )
    assert actual[-1] == (
        "mobile-0.31ms beats the best of 3 random networks by 0.3 points (mean of 2 seeds)"
    )
    assert len(actual) == 2


def test_a_difference_of_one_seed_names_the_case_of_that_seed() -> None:
    actual = findings([CASE, seed(1, CASE), seed(1, random_result())])
    assert actual == ["mobile-0.31ms-seed1 beats the best of 3 random networks by 0.4 points"]


def test_the_widest_table_fits_120_columns_with_seeds() -> None:
    widest = width("mobilenet_v2_1.4", 0.5, 0.98, params=25_557_032, macs=3_678_200_000)
    text = comparison_text([CASE, seed(1, CASE), REFERENCE, seed(1, widest), random_result()])
    assert max(map(len, text.splitlines())) <= 120
