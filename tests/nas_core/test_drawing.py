"""Drawings: one line per part, correct numbers, narrow enough for a terminal."""

from __future__ import annotations

import re

import pytest

from nas_core.architecture import Architecture
from nas_core.drawing import drawing, parts
from nas_core.space import SearchSpace, proxyless_imagenet, proxyless_small
from tests.support.tiny import K3, two_sites

PUBLISHED = proxyless_imagenet()
SKIPPING = Architecture(two_sites(), (K3, "skip"))


def lines(architecture: Architecture) -> list[str]:
    return drawing(architecture).splitlines()


@pytest.mark.parametrize("space", [PUBLISHED, proxyless_small(), two_sites()], ids=lambda s: s.name)
def test_the_parts_add_up_to_the_network(space: SearchSpace) -> None:
    architecture = Architecture.reference(space)
    result = parts(architecture)
    assert sum(part.params for part in result) == architecture.num_params()
    assert sum(part.macs for part in result) == architecture.macs()


def test_every_site_has_a_line_with_its_op_and_shapes() -> None:
    architecture = Architecture.reference(PUBLISHED)
    title, _, stem, *sites, head, total = lines(architecture)
    assert "proxyless_imagenet" in title
    assert [line.split()[:2] for line in sites] == [
        [s.name, "mbconv_k3_e6"] for s in PUBLISHED.sites
    ]
    assert sites[0].split()[2:5] == ["16x112x112", "32x56x56", "2"]
    assert re.match(r"stem +conv_k3, sepconv_k3 +3x224x224 +16x112x112 +2 ", stem)
    assert re.match(r"head +conv_k1, linear +320x7x7 +1000 +1 ", head)
    assert f"{architecture.num_params():,}" in total


def test_a_skip_has_no_parameters_and_no_bar() -> None:
    *_, skip, _, _ = lines(SKIPPING)
    assert skip.split() == ["stage1.1", "skip", "4x4x4", "4x4x4", "1", "0", "0.0", "M"]


def test_the_part_with_most_multiply_accumulates_has_the_longest_bar() -> None:
    architecture = Architecture.reference(PUBLISHED)
    result = parts(architecture)
    bars = [line.count("█") for line in lines(architecture)[2:-1]]
    largest = max(range(len(result)), key=lambda i: result[i].macs)
    assert bars[largest] == max(bars) == 12


def test_a_stem_without_a_fixed_block_says_so() -> None:
    assert lines(SKIPPING)[2].split()[1] == "conv_k3"


def test_a_drawing_fits_a_terminal() -> None:
    long = "mbconv_k7_e6_hswish"
    space = proxyless_imagenet(width=2, ops=(long, "mbconv_k3_e3"), reference_op=long)
    assert max(len(line) for line in lines(Architecture.reference(space))) < 100
