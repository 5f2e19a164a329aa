"""Architectures: published parameter and MAC counts, JSON, digests, errors."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.architecture import Architecture, count_macs, count_params
from nas_core.space import SearchSpace, proxyless_imagenet
from tests.support.tiny import K3, K5, all_architectures, all_paths, two_sites

SPACE = two_sites()


def ops(text: str) -> tuple[str, ...]:
    """Ops from a text: "53" is kernel 5, expansion 3; "-" is skip."""
    return tuple("skip" if w == "-" else f"mbconv_k{w[0]}_e{w[1]}" for w in text.split())


# The three published networks, site by site (ImageNet, 224 pixels, 1000 classes).
MOBILE = ops("53 33 - - 73 33 53 53 76 53 53 53 56 53 53 53 76 76 73 73 76")
CPU = ops("36 33 33 33 36 33 33 53 36 - - 33 56 33 33 33 56 53 53 33 56")
GPU = ops("53 - - - 73 - - 33 76 - - 53 56 - 33 53 76 76 76 56 76")


PUBLISHED = {
    "mobile": (proxyless_imagenet(), MOBILE, 4_080_512, 320_427_584),
    "cpu": (proxyless_imagenet(width=1.12, first_stage=24), CPU, 4_361_648, 439_243_864),
    "gpu": (proxyless_imagenet(width=1.35, first_stage=24), GPU, 7_119_848, 465_260_160),
}


def architectures(space: SearchSpace) -> st.SearchStrategy[Architecture]:
    chosen = st.tuples(*(st.sampled_from(site.ops) for site in space.sites))
    return st.builds(Architecture, st.just(space), chosen)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_parameters(name: str) -> None:
    space, chosen, params, _ = PUBLISHED[name]
    assert Architecture(space, chosen).num_params() == params


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_macs(name: str) -> None:
    space, chosen, _, macs = PUBLISHED[name]
    assert Architecture(space, chosen).macs() == macs


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet34", "shufflenet_v2_x1_5"])
def test_any_module_is_counted_as_torchvision_counts_it(name: str) -> None:
    from torchvision.models import get_model, get_model_weights

    facts = get_model_weights(name)["IMAGENET1K_V1"].meta
    build = partial(get_model, name)
    assert count_params(build) == facts["num_params"]
    assert count_macs(build, 3, 224) == pytest.approx(1e9 * facts["_ops"], rel=2e-3)


@pytest.mark.parametrize("space", [SPACE, proxyless_imagenet()], ids=["tiny", "imagenet"])
def test_an_architecture_survives_json(space: SearchSpace) -> None:
    @given(architectures(space))
    @settings(max_examples=20)
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
