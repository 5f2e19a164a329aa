"""Spaces: published sizes, consistent shapes, JSON, errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas_core.architecture import Architecture
from nas_core.shapes import make_divisible
from nas_core.space import (
    MOBILE_OPS,
    SearchSpace,
    Stage,
    chain,
    proxyless_imagenet,
    proxyless_small,
)
from tests.support.tiny import K3, K5, two_sites


def stages() -> st.SearchStrategy[list[Stage]]:
    one = st.builds(Stage, st.sampled_from((8, 12)), st.integers(1, 3), st.sampled_from((1, 2)))
    return st.lists(one, min_size=1, max_size=4)


def a_chain(of: Sequence[Stage]) -> SearchSpace:
    return chain(
        "chain",
        stages=of,
        ops=(K3, K5, "skip"),
        in_channels=1,
        resolution=33,
        classes=2,
        stem_channels=8,
        stem_stride=2,
        head_channels=16,
        reference_op=K3,
    )


def test_size_of_the_published_space() -> None:
    # 21 sites, six convolutions each; the 15 that keep their shape may also be skipped.
    assert proxyless_imagenet().size() == 6**6 * 7**15


def test_the_published_space_has_141_architecture_parameters() -> None:
    assert sum(len(site.ops) for site in proxyless_imagenet().sites) == 141


def test_the_published_space_halves_224_pixels_five_times() -> None:
    first_of_stage = proxyless_imagenet().sites[::4]
    assert [site.resolution for site in first_of_stage] == [112, 56, 28, 14, 14, 7]


def test_the_small_space_has_six_sites_on_32_pixels() -> None:
    sites = proxyless_small().sites
    assert [site.out_channels for site in sites] == [24, 24, 32, 32, 48, 48]
    assert [site.stride for site in sites] == [2, 1, 2, 1, 1, 1]
    assert [site.resolution for site in sites] == [32, 16, 16, 8, 8, 8]


def test_only_sites_that_keep_their_shape_can_be_skipped() -> None:
    skippable = [site.name for site in proxyless_small().sites if "skip" in site.ops]
    assert skippable == ["stage1.1", "stage2.1", "stage3.1"]
    assert all(set(site.ops) | {"skip"} == set(MOBILE_OPS) for site in proxyless_small().sites)


@given(st.floats(0.01, 1e6))
def test_rounded_channels_are_a_multiple_of_8_and_never_below_90_percent(channels: float) -> None:
    rounded = make_divisible(channels)
    assert rounded % 8 == 0
    assert rounded >= 8
    assert rounded >= 0.9 * channels


@given(st.floats(8, 1e6))
def test_rounded_channels_are_the_nearest_multiple_unless_that_is_too_few(channels: float) -> None:
    below = channels // 8 * 8
    nearest = below if channels - below < 4 else below + 8
    assert make_divisible(channels) == (nearest if nearest >= 0.9 * channels else nearest + 8)


@given(st.integers(1, 10_000))
def test_multiples_of_8_are_not_rounded(eighths: int) -> None:
    assert make_divisible(8 * eighths) == 8 * eighths


@pytest.mark.parametrize("channels", [0, -8, float("nan"), float("inf")])
def test_what_is_no_number_of_channels_is_not_rounded(channels: float) -> None:
    with pytest.raises(ValueError, match="expected a finite number greater than 0"):
        make_divisible(channels)


def channels_of(space: SearchSpace) -> list[int | None]:
    """Channels of stem, first block, stages and head."""
    stages = {site.name.split(".")[0]: site.out_channels for site in space.sites}
    return [space.stem_channels, space.first_channels, *stages.values(), space.head_channels]


@pytest.mark.parametrize(
    ("width", "first_stage", "channels"),
    [
        (1.0, 32, [32, 16, 32, 40, 80, 96, 192, 320, 1280]),  # Proxyless-Mobile
        (1.12, 24, [40, 24, 32, 48, 88, 104, 216, 360, 1432]),  # Proxyless-CPU
        (1.35, 24, [40, 24, 32, 56, 112, 128, 256, 432, 1728]),  # Proxyless-GPU
    ],
)
def test_a_width_gives_the_channels_of_the_published_networks(
    width: float, first_stage: int, channels: list[int]
) -> None:
    assert channels_of(proxyless_imagenet(width=width, first_stage=first_stage)) == channels


def test_a_width_scales_all_of_the_small_space() -> None:
    assert channels_of(proxyless_small(width=2)) == [32, None, 48, 64, 96, 384]


def test_the_name_of_a_space_tells_what_is_not_as_published() -> None:
    assert proxyless_imagenet().name == "proxyless_imagenet"
    assert proxyless_imagenet(width=1.12).name == "proxyless_imagenet_1.12"
    assert proxyless_imagenet(first_stage=24).name == "proxyless_imagenet_first24"
    assert proxyless_small(width=0.5).name == "proxyless_small_0.5"


def test_the_widths_of_the_published_networks_leave_the_size_of_the_space() -> None:
    for width in (1.12, 1.35):
        assert proxyless_imagenet(width=width, first_stage=24).size() == 6**6 * 7**15


def test_a_site_between_stages_that_a_width_makes_equal_can_be_skipped() -> None:
    site = proxyless_imagenet(width=0.35).sites[12]
    assert (site.name, site.in_channels, site.out_channels) == ("stage4.0", 32, 32)  # of 80, 96
    assert "skip" in site.ops


def test_every_batchnorm_of_a_network_has_the_epsilon_of_its_space() -> None:
    for make in (proxyless_imagenet, proxyless_small):
        network = Architecture.reference(make(bn_eps=1e-5)).build()
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        assert {norm.eps for norm in norms} == {1e-5}


@given(stages())
def test_every_site_takes_what_the_one_before_gives(of: list[Stage]) -> None:
    sites = a_chain(of).sites
    assert len(sites) == sum(stage.blocks for stage in of)
    for before, after in pairwise(sites):
        assert after.in_channels == before.out_channels
        assert after.resolution == -(-before.resolution // before.stride)  # rounded up


@given(stages())
def test_a_space_survives_json(of: list[Stage]) -> None:
    space = a_chain(of)
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def without(values: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {**d, "format": "space/2"}, "not a search space of format 'space/1': 'space/2'"),
        (lambda d: without(d, "format"), "not a search space of format 'space/1': None"),
        (lambda d: without(d, "sites"), "cannot be read: 'sites'"),
        (lambda d: without(d, "classes"), "classes"),
        (lambda d: {**d, "colour": 1}, "colour"),
        (lambda d: {**d, "sites": [without(d["sites"][0], "stride")]}, "stride"),
    ],
)
def test_what_is_no_space_of_this_format_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchSpace.from_dict(change(two_sites().to_dict()))


def test_an_unknown_op_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="'mbconv_k9' is not an op; expected one of mbconv_k3_e3"):
        two_sites((K3, "mbconv_k9"))


def test_a_reference_op_that_is_no_candidate_is_refused_with_the_site() -> None:
    message = "reference op 'mbconv_k7_e6' is not a candidate at 'stage1.0'; expected one of mbconv"
    with pytest.raises(ValueError, match=message):
        replace(two_sites((K3, K5)), reference_op="mbconv_k7_e6")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 9}, "takes 9 channels, but 8 come to it"),
        ({"ops": (K3,)}, "expected two different or more"),
        ({"ops": (K3, K3)}, "expected two different or more"),
        ({"ops": (K3, K5, "skip"), "stride": 2}, "changes the shape and cannot be skipped"),
        ({"ops": (K3, "conv")}, "'conv' is not an op; expected one of"),
    ],
)
def test_a_site_that_cannot_stand_where_it_is_is_refused(
    change: dict[str, Any], message: str
) -> None:
    space = a_chain([Stage(8, 1, 1)])
    site = replace(space.sites[0], **change)
    with pytest.raises(ValueError, match=message):
        replace(space, sites=(site,))


def test_a_space_without_sites_is_refused() -> None:
    with pytest.raises(ValueError, match="has no sites"):
        replace(a_chain([Stage(8, 1, 1)]), sites=())


def test_two_sites_of_one_name_are_refused() -> None:
    space = a_chain([Stage(8, 1, 1)])
    with pytest.raises(ValueError, match=r"\['stage1.0', 'stage1.0'\]; expected each name once"):
        replace(space, sites=space.sites * 2)
