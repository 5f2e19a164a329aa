"""Latency: expectations compared with enumeration, sums by hand, JSON, missing rows."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.architecture import Architecture
from nas_core.gates import sample_path
from nas_core.latency import (
    LatencyEntry,
    LatencyTable,
    OpSignature,
    expected_latency_ms,
    op_signatures,
    site_part,
)
from nas_core.published import pixel1
from nas_core.space import proxyless_imagenet, proxyless_small
from tests.support.tiny import (
    K3,
    K5,
    all_architectures,
    all_paths,
    noisy_table,
    row_of,
    table_of,
    two_sites,
)

SPACE = two_sites(sites=3)
TABLE = noisy_table(SPACE, seed=0)
COSTS = [torch.tensor(row, dtype=torch.float64) for row in TABLE.costs_ms(SPACE)]


def probs(seed: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(3, generator=rng, dtype=torch.float64).softmax(0) for _ in SPACE.sites]


@pytest.mark.parametrize("seed", range(5))
def test_expected_latency_is_the_mean_over_all_architectures(seed: int) -> None:
    p = probs(seed)
    total = 0.0
    for path in all_paths(SPACE):
        probability = float(torch.stack([p[i][j] for i, j in enumerate(path)]).prod())
        total += probability * TABLE.latency_ms(Architecture.from_path(SPACE, list(path)))
    result = float(expected_latency_ms(p, COSTS, TABLE.fixed_ms(SPACE)))
    assert result == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_expected_latency_is_the_mean_over_sampled_architectures(seed: int) -> None:
    space, draws = proxyless_imagenet(), 500
    table = pixel1.table(space)  # some of its costs are negative
    rng = torch.Generator().manual_seed(seed)
    choices = [len(site.ops) for site in space.sites]
    p = [torch.randn(n, generator=rng, dtype=torch.float64).softmax(0) for n in choices]
    costs = [torch.tensor(row, dtype=torch.float64) for row in table.costs_ms(space)]
    expected = float(expected_latency_ms(p, costs, table.fixed_ms(space)))
    paths = [sample_path(p, rng) for _ in range(draws)]
    result = [table.latency_ms(Architecture.from_path(space, path)) for path in paths]
    assert abs(mean(result) - expected) < 4 * stdev(result) / draws**0.5


@given(st.sampled_from(all_architectures(SPACE)))
def test_one_hot_probabilities_cost_what_the_architecture_costs(arch: Architecture) -> None:
    one_hot = [torch.eye(3, dtype=torch.float64)[choice] for choice in arch.path()]
    result = float(expected_latency_ms(one_hot, COSTS, TABLE.fixed_ms(SPACE)))
    assert result == pytest.approx(TABLE.latency_ms(arch), rel=1e-12)


def test_the_slope_of_the_expected_latency_is_the_cost_of_the_op() -> None:
    p = [site.requires_grad_() for site in probs(0)]
    result = torch.autograd.grad(expected_latency_ms(p, COSTS, 1.0), p)
    for grad, cost in zip(result, COSTS, strict=True):
        assert torch.equal(grad, cost)


def test_latency_is_the_sum_of_stem_ops_and_head() -> None:
    ms = {"stem": 1.0, "head": 10.0, K3: 100.0, K5: 1000.0}
    table = table_of(SPACE, lambda part: ms[part.op])
    assert table.latency_ms(Architecture(SPACE, (K3, K5, K5))) == 2111.0


def test_a_skip_takes_no_time() -> None:
    table = table_of(SPACE, lambda _: 1.0)
    assert table.latency_ms(Architecture.uniform(SPACE, "skip")) == 2.0  # stem and head


def with_rows(*rows: LatencyEntry) -> LatencyTable:
    return replace(TABLE, rows=(*rows, *TABLE.rows))


def test_a_row_with_a_site_holds_at_that_site_alone() -> None:
    second = SPACE.sites[1]
    table = with_rows(replace(row_of(site_part(second, K3), 7.0), site=second.name))
    first_ms, second_ms, third_ms = (row[0] for row in table.costs_ms(SPACE))
    assert second_ms == 7.0
    assert first_ms == third_ms == TABLE.costs_ms(SPACE)[0][0]


def test_a_row_with_another_site_does_not_stand_in() -> None:
    rows = tuple(replace(row, site="stage9.9") for row in TABLE.rows)
    with pytest.raises(ValueError, match=r"no entry for '.*' at 'stage1\.0'"):
        replace(TABLE, rows=rows).costs_ms(SPACE)


def test_a_skip_costs_its_row() -> None:
    skip = row_of(site_part(SPACE.sites[0], "skip"), -0.5)
    everywhere, at_one = with_rows(skip), with_rows(replace(skip, site="stage1.2"))
    assert [row[-1] for row in everywhere.costs_ms(SPACE)] == [-0.5, -0.5, -0.5]
    assert [row[-1] for row in at_one.costs_ms(SPACE)] == [0.0, 0.0, -0.5]


def test_rows_of_skips_and_of_sites_are_calibrated_too() -> None:
    skip = replace(row_of(site_part(SPACE.sites[0], "skip"), -0.5), site="stage1.0")
    table, skips = with_rows(skip), Architecture.uniform(SPACE, "skip")
    scaled = table.through(skips, 3.0)
    assert scaled.latency_ms(skips) == pytest.approx(3.0)
    assert scaled.costs_ms(SPACE)[0][-1] == pytest.approx(-0.5 * scaled.scale)


@given(st.sampled_from(all_architectures(SPACE)))
def test_costs_below_zero_add_up_too(arch: Architecture) -> None:
    rows = tuple(row_of(row.part, row.median_ms - 0.6) for row in TABLE.rows)
    table = replace(TABLE, rows=rows)
    costs = [row[choice] for row, choice in zip(table.costs_ms(SPACE), arch.path(), strict=True)]
    assert table.latency_ms(arch) == pytest.approx(table.fixed_ms(SPACE) + sum(costs))


def test_the_costs_of_the_published_space_take_under_5_milliseconds() -> None:
    space = proxyless_imagenet()
    tables = [noisy_table(space, seed) for seed in range(5)]  # new tables, without cached values
    times = []
    for table in tables:
        began = time.process_time()
        table.costs_ms(space)
        times.append(time.process_time() - began)
    assert min(times) < 0.005


def test_fastest_and_slowest_are_the_ends_of_the_enumeration() -> None:
    latencies = {arch: TABLE.latency_ms(arch) for arch in all_architectures(SPACE)}
    assert TABLE.range_ms() == (min(latencies.values()), max(latencies.values()))
    assert latencies[TABLE.fastest()] == min(latencies.values())
    assert latencies[TABLE.slowest()] == max(latencies.values())


@given(st.sampled_from(all_architectures(SPACE)), st.floats(0.01, 100))
def test_a_calibrated_table_passes_through_the_measured_network(
    arch: Architecture, measured_ms: float
) -> None:
    result = TABLE.through(arch, measured_ms)
    assert result.latency_ms(arch) == pytest.approx(measured_ms)
    others = [other for other in all_architectures(SPACE) if other != arch]
    factor = measured_ms / TABLE.latency_ms(arch)
    for other in others:
        assert result.latency_ms(other) == pytest.approx(factor * TABLE.latency_ms(other))


def test_calibrating_twice_passes_through_the_last_network() -> None:
    first, second = Architecture.uniform(SPACE, K3), Architecture.uniform(SPACE, K5)
    table = TABLE.through(first, 7.0).through(second, 3.0)
    assert table.latency_ms(second) == pytest.approx(3.0)


@pytest.mark.parametrize("op", [K3, K5])
def test_a_missing_row_is_an_error_that_names_op_and_site(op: str) -> None:
    rows = tuple(row for row in TABLE.rows if row.part.op != op)
    message = rf"'desk \(imagined\)' has no entry for '{op}' at 'stage1\.0'; run the measure stage"
    with pytest.raises(ValueError, match=message):
        replace(TABLE, rows=rows).costs_ms(SPACE)


@pytest.mark.parametrize("part", ["stem", "head"])
def test_a_missing_fixed_part_is_an_error(part: str) -> None:
    rows = tuple(row for row in TABLE.rows if row.part.op != part)
    with pytest.raises(ValueError, match=f"no entry for '{part}' at '{part}'"):
        replace(TABLE, rows=rows).latency_ms(Architecture.uniform(SPACE, "skip"))


def test_a_row_of_another_resolution_does_not_stand_in() -> None:
    rows = tuple(
        replace(row, part=replace(row.part, resolution=9)) if row.part.op == K3 else row
        for row in TABLE.rows
    )
    with pytest.raises(ValueError, match=f"no entry for '{K3}'"):
        replace(TABLE, rows=rows).costs_ms(SPACE)


def test_the_published_space_has_66_distinct_ops() -> None:
    # 21 sites of 11 distinct shapes with six convolutions each; networks omit skips.
    parts = op_signatures(proxyless_imagenet())
    assert len(parts) == len(set(parts)) == 66 + 2


def test_sites_of_equal_shape_share_their_rows() -> None:
    parts = op_signatures(SPACE)
    assert [part.op for part in parts] == ["stem", K3, K5, "head"]
    assert parts[1] == OpSignature(K3, 4, 4, 1, 4)


def test_the_head_works_on_the_output_of_the_last_site() -> None:
    stem, *_, head = op_signatures(proxyless_small())
    assert stem == OpSignature("stem", 1, 16, 1, 32)
    assert head == OpSignature("head", 48, 10, 1, 8)


@given(st.integers(0, 50), st.floats(0.1, 10), st.none() | st.floats(0.1, 10))
def test_a_table_survives_json(seed: int, scale: float, reference_ms: float | None) -> None:
    table = replace(noisy_table(SPACE, seed), scale=scale, reference_ms=reference_ms)
    assert LatencyTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def test_a_table_with_rows_of_sites_survives_json() -> None:
    skip = replace(row_of(site_part(SPACE.sites[0], "skip"), -0.5), site="stage1.0")
    table = with_rows(skip)
    assert LatencyTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def test_rows_without_a_site_are_written_as_they_were_before_there_was_one() -> None:
    keys = {"op", "in_channels", "out_channels", "stride", "resolution"}
    keys |= {"median_ms", "p10_ms", "p90_ms", "spread", "count"}
    assert all(set(row) == keys for row in TABLE.to_dict()["rows"])


def changed_row(values: dict[str, Any], **change: Any) -> dict[str, Any]:
    first, *others = values["rows"]
    return {**values, "rows": [{**first, **change}, *others]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {**d, "format": "latency-table/x"}, "of format 'latency-table/2': 'latency-t"),
        (lambda d: {**d, "format": None}, "of format 'latency-table/2': None"),
        (lambda d: {k: v for k, v in d.items() if k != "rows"}, "cannot be read: 'rows'"),
        (lambda d: {**d, "unit": "s"}, "unit"),
        (lambda d: changed_row(d, median_ms=float("nan")), "the row of 'stem' is nan ms"),
        (lambda d: changed_row(d, median_ms=float("inf")), "the row of 'stem' is inf ms"),
        (lambda d: changed_row(d, median_ms="1"), "cannot be read"),
        (lambda d: changed_row(d, median_s=1), "median_s"),
    ],
)
def test_what_is_no_table_of_this_format_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyTable.from_dict(change(TABLE.to_dict()))


def test_negative_rows_are_kept() -> None:
    # A small op minus the overhead of a call may be negative.
    table = replace(TABLE, rows=(*TABLE.rows[:1], row_of(TABLE.rows[1].part, -0.01)))
    assert LatencyTable.from_dict(table.to_dict()).rows[1].median_ms == -0.01


@pytest.mark.parametrize(
    "change",
    [
        {"scale": float("nan")},
        {"scale": "x"},
        {"scale": 0},
        {"overhead_ms": -1.0},
        {"reference_ms": -2},
    ],
)
def test_a_table_with_a_figure_that_is_no_time_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        LatencyTable.from_dict({**TABLE.to_dict(), **change})


@pytest.mark.parametrize("measured_ms", [0.0, -1.0])
def test_a_table_cannot_be_scaled_through_nothing(measured_ms: float) -> None:
    with pytest.raises(ValueError, match="both must be above 0"):
        TABLE.through(all_architectures(SPACE)[0], measured_ms)


def test_an_offset_is_part_of_every_network_once() -> None:
    table = noisy_table(SPACE, 0)
    moved = replace(table, offset_ms=0.25)
    for arch in all_architectures(SPACE):
        assert moved.latency_ms(arch) == pytest.approx(table.latency_ms(arch) + 0.25)
    assert moved.fixed_ms(SPACE) == pytest.approx(table.fixed_ms(SPACE) + 0.25)
    assert moved.costs_ms(SPACE) == table.costs_ms(SPACE)


def test_the_sum_of_parts_knows_no_calibration() -> None:
    table = noisy_table(SPACE, 0)
    arch = all_architectures(SPACE)[0]
    calibrated = replace(table, scale=1.3, offset_ms=-0.1)
    assert calibrated.parts_ms(arch) == pytest.approx(table.latency_ms(arch))


def test_an_affine_table_still_passes_through_a_measured_network() -> None:
    table = replace(noisy_table(SPACE, 0), scale=1.1, offset_ms=0.2)
    arch = all_architectures(SPACE)[0]
    assert table.through(arch, 7.5).latency_ms(arch) == pytest.approx(7.5)


@pytest.mark.parametrize(("factor", "meant"), [(1e-7, "seconds"), (1e6, "microseconds")])
def test_a_table_in_another_unit_is_refused_with_a_question(factor: float, meant: str) -> None:
    table = noisy_table(SPACE, 0)
    rows = tuple(replace(row, median_ms=factor * row.median_ms) for row in table.rows)
    with pytest.raises(ValueError, match=f"were {meant} meant\\?"):
        replace(table, rows=rows).check()


def test_a_table_by_which_the_fastest_network_takes_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the fastest network of 'tiny' takes -\d"):
        replace(noisy_table(SPACE, 0), offset_ms=-1e3).check()


def test_a_table_from_a_newer_version_is_refused_with_the_way_out() -> None:
    values = {**noisy_table(SPACE, 0).to_dict(), "format": "latency-table/9"}
    with pytest.raises(ValueError, match=r"'latency-table/9' is from a newer one.*update this pro"):
        LatencyTable.from_dict(values)


def test_tables_of_the_first_format_are_read() -> None:
    table = noisy_table(SPACE, 0)
    values = {**table.to_dict(), "format": "latency-table/1"}
    for name in ("offset_ms", "calibration", "device", "date"):
        del values[name]
    assert LatencyTable.from_dict(values) == table
