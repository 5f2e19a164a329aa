"""Pixel 1: published latencies reproduced, and inputs that the model does not cover."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nas_core.architecture import Architecture
from nas_core.derive import best_within
from nas_core.latency import LatencyTable
from nas_core.published.pixel1 import table
from nas_core.space import (
    MOBILE_OPS,
    SearchSpace,
    Stage,
    chain,
    proxyless_imagenet,
    proxyless_small,
)
from tests.nas_core.test_architecture import MOBILE

SPACE = proxyless_imagenet()
TABLE = table(SPACE)


def test_proxyless_mobile_takes_84_ms() -> None:
    assert TABLE.latency_ms(Architecture(SPACE, MOBILE)) == pytest.approx(84.42, abs=0.005)


@pytest.mark.parametrize(("op", "ms"), [("mbconv_k3_e3", 70.7), ("mbconv_k7_e6", 209.1)])
def test_uniform_networks_take_what_was_published(op: str, ms: float) -> None:
    assert TABLE.latency_ms(Architecture.uniform(SPACE, op)) == pytest.approx(ms, abs=0.05)


def test_the_table_has_one_offset_per_choice_beside_stem_and_head() -> None:
    assert len(TABLE.rows) == 141 + 2


def test_leaving_a_site_out_is_faster_than_any_op_there() -> None:
    for site, costs in zip(SPACE.sites, TABLE.costs_ms(SPACE), strict=True):
        if "skip" in site.ops:
            assert costs[site.ops.index("skip")] == min(costs)


def test_larger_kernels_and_expansions_take_longer_at_every_site() -> None:
    for costs in TABLE.costs_ms(SPACE):
        k3, k5, k7 = costs[0:2], costs[2:4], costs[4:6]
        assert all(small < large for small, large in (k3, k5, k7))
        assert all(a < b for pair in pairwise((k3, k5, k7)) for a, b in zip(*pair, strict=True))


def test_percent_budgets_refer_to_the_uniform_network_by_the_model() -> None:
    reference = Architecture.uniform(SPACE, "mbconv_k3_e6")
    assert TABLE.reference_ms == pytest.approx(TABLE.latency_ms(reference))


def test_the_table_says_that_nothing_was_measured_here() -> None:
    assert TABLE.target == "pixel1"
    assert "published linear model, TensorFlow Lite, float" in TABLE.hardware
    assert {row.count for row in TABLE.rows} == {0}


def test_the_table_survives_json() -> None:
    assert LatencyTable.from_dict(json.loads(json.dumps(TABLE.to_dict()))) == TABLE


def test_sites_of_equal_shape_have_offsets_of_their_own() -> None:
    second, third = TABLE.costs_ms(SPACE)[1:3]
    assert all(a != b for a, b in zip(second, third, strict=True))


@pytest.mark.parametrize("change", [{"classes": 10}, {"in_channels": 1}, {"bn_eps": 1e-5}])
def test_what_does_not_change_the_sites_does_not_change_their_costs(change: dict[str, int]) -> None:
    other = proxyless_imagenet(**change)
    assert table(other).costs_ms(other) == TABLE.costs_ms(SPACE)


@given(st.permutations(MOBILE_OPS), st.integers(2, 7))
@settings(max_examples=30)
def test_a_choice_of_the_ops_costs_what_it_costs_among_all(ops: list[str], number: int) -> None:
    chosen = ops[:number]
    assume(len([op for op in chosen if op != "skip"]) >= 2)
    reference = next(op for op in chosen if op != "skip")
    space = proxyless_imagenet(ops=chosen, reference_op=reference)
    part = table(space)
    network = Architecture.uniform(space, reference)
    assert part.latency_ms(network) == TABLE.latency_ms(Architecture(SPACE, network.ops))


def test_a_chain_spelled_out_like_the_published_space_has_the_table() -> None:
    stages = [(32, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1)]
    space = chain(
        "mine",
        stages=[Stage(*stage) for stage in stages],
        ops=MOBILE_OPS,
        in_channels=3,
        resolution=224,
        classes=10,
        stem_channels=32,
        stem_stride=2,
        first_channels=16,
        head_channels=1280,
    )
    assert table(space).costs_ms(space) == TABLE.costs_ms(SPACE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: proxyless_imagenet(resolution=192),
            "resolution of 'proxyless_imagenet' is 192",
        ),
        (lambda: proxyless_imagenet(width=1.4), "stem_channels of 'proxyless_imagenet_1.4' is 48"),
        (
            lambda: proxyless_imagenet(first_stage=24),
            r"'stage1.0' of .* is 16 -> 24 channels with stride 2 at 112 pixels, but 16 -> 32 ",
        ),
        (lambda: proxyless_small(resolution=224), "stem_channels of 'proxyless_small' is 16"),
        (
            lambda: proxyless_imagenet(ops=("mbconv_k3_e6", "mbconv_k3_e6_se")),
            "no published latency of 'mbconv_k3_e6_se' at 'stage1.0' on a Pixel 1; expected one of",
        ),
    ],
)
def test_what_the_model_does_not_know_is_refused(
    make: Callable[[], SearchSpace], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        table(make())


@given(st.integers(0, 10_000), st.floats(32, 200))
@settings(max_examples=40)
def test_the_best_network_within_a_budget_is_within_it(seed: int, budget_ms: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    log_probs = [torch.randn(len(s.ops), generator=rng).log_softmax(0) for s in SPACE.sites]
    best = best_within(log_probs, TABLE, budget_ms)
    assert TABLE.latency_ms(best) <= budget_ms
