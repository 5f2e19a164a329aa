"""Architectures: published parameter and MAC counts, JSON, digests, refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.architecture import Architecture
from nas_core.space import MOBILE_OPS, SearchSpace, Stage, chain, proxyless_imagenet
from tests.nas_core.tiny import K3, K5, all_architectures, all_paths, two_sites

SPACE = two_sites()


def ops(text: str) -> tuple[str, ...]:
    """From "53" = kernel 5, expansion 3; "-" = skip."""
    return tuple("skip" if w == "-" else f"mbconv_k{w[0]}_e{w[1]}" for w in text.split())


# The three published networks, site by site (ImageNet, 224 pixels, 1000 classes).
MOBILE = ops("53 33 - - 73 33 53 53 76 53 53 53 56 53 53 53 76 76 73 73 76")
CPU = ops("36 33 33 33 36 33 33 53 36 - - 33 56 33 33 33 56 53 53 33 56")
GPU = ops("53 - - - 73 - - 33 76 - - 53 56 - 33 53 76 76 76 56 76")


def imagenet(widths: Sequence[int], stem: int, first: int, head: int) -> SearchSpace:
    shape = zip(widths, (4, 4, 4, 4, 4, 1), (2, 2, 2, 1, 2, 1), strict=True)
    return chain(
        "imagenet",
        stages=[Stage(*stage) for stage in shape],
        ops=MOBILE_OPS,
        in_channels=3,
        resolution=224,
        classes=1000,
        stem_channels=stem,
        stem_stride=2,
        first_channels=first,
        head_channels=head,
    )


PUBLISHED = {
    "mobile": (Architecture(proxyless_imagenet(), MOBILE), 4_080_512, 320_427_584),
    "cpu": (
        Architecture(imagenet((32, 48, 88, 104, 216, 360), 40, 24, 1432), CPU),
        4_361_648,
        439_243_864,
    ),
    "gpu": (
        Architecture(imagenet((32, 56, 112, 128, 256, 432), 40, 24, 1728), GPU),
        7_119_848,
        465_260_160,
    ),
}


def architectures(space: SearchSpace) -> st.SearchStrategy[Architecture]:
    chosen = st.tuples(*(st.sampled_from(site.ops) for site in space.sites))
    return st.builds(Architecture, st.just(space), chosen)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_parameters(name: str) -> None:
    architecture, params, _ = PUBLISHED[name]
    assert architecture.num_params() == params


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_macs(name: str) -> None:
    architecture, _, macs = PUBLISHED[name]
    assert architecture.macs() == macs


@pytest.mark.parametrize("space", [SPACE, proxyless_imagenet()], ids=["tiny", "imagenet"])
def test_an_architecture_survives_json(space: SearchSpace) -> None:
    @given(architectures(space))
    def check(architecture: Architecture) -> None:
        assert Architecture.from_json(architecture.to_json()) == architecture

    check()


def test_an_architecture_survives_its_path() -> None:
    for path in all_paths(SPACE):
        assert Architecture.from_path(SPACE, list(path)).path() == list(path)


def test_equal_digests_mean_equal_architectures() -> None:
    digests = {architecture.digest() for architecture in all_architectures(SPACE)}
    assert len(digests) == SPACE.size() == 9
    again = Architecture.from_json(Architecture.reference(SPACE).to_json())
    assert again.digest() == Architecture.reference(SPACE).digest()


def test_the_reference_network_has_the_reference_op_everywhere() -> None:
    reference = Architecture.reference(proxyless_imagenet())
    assert reference.ops == ("mbconv_k3_e6",) * 21


def test_skips_are_left_out_of_the_network() -> None:
    assert len(Architecture(SPACE, ("skip", K3)).build().blocks) == 1


def test_a_network_has_one_logit_per_class_of_the_space() -> None:
    network = Architecture(SPACE, (K5, "skip")).build().eval()
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ('{"format": "architecture/2"}', "of format 'architecture/1': 'architecture/2'"),
        ("{}", "of format 'architecture/1': None"),
        ('{"format": "architecture/1", "ops": []}', "cannot be read: 'space'"),
        ("[]", "not an architecture: list; expected a mapping"),
        ("null", "not an architecture: NoneType; expected a mapping"),
        (
            json.dumps({"format": "architecture/1", "ops": [], "space": 5}),
            "not a search space: int; expected a mapping",
        ),
        (
            json.dumps({"format": "architecture/1", "ops": [], "space": {"format": "space/0"}}),
            "not a search space of format 'space/1': 'space/0'",
        ),
    ],
)
def test_what_is_no_architecture_of_this_format_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture.from_json(text)


def test_an_op_that_is_no_candidate_is_refused_with_the_site() -> None:
    with pytest.raises(ValueError, match=r"'mbconv_k7_e6' is not a candidate at 'stage1\.1'"):
        Architecture(SPACE, (K3, "mbconv_k7_e6"))


def test_an_op_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="1 ops for the 2 sites of 'tiny'"):
        Architecture(SPACE, (K3,))
