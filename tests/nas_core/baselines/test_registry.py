"""Baselines: published sizes, torchvision's outputs, strides for small images."""

from __future__ import annotations

import copy
import subprocess
import sys
from functools import cache
from math import prod
from typing import Any

import pytest
import torch
from torch import nn

from nas_core.architecture import Architecture, on_meta, output_shapes
from nas_core.baselines import registry
from nas_core.baselines.registry import (
    BASELINES,
    Baseline,
    build,
    for_space,
    model_from_dict,
    strides_of,
)
from nas_core.space import SearchSpace, Stage, chain, proxyless_imagenet, proxyless_small
from tests.conftest import REPOSITORY
from tests.support.golden import golden
from tests.support.tiers import slow

COUNTS: dict[str, dict[str, Any]] = golden("baselines.json")["counts"]
KINDS = (
    "mobilenet_v2",
    "mnasnet",
    "shufflenet_v2_1.5",
    "resnet18",
    "darts",
    *slow("mobilenet_v1", "resnet34", "nasnet_a", "amoebanet_a"),
)
"""One baseline of every builder. Networks of cells have hundreds of layers and are slow."""
SMALL = proxyless_small(classes=5, resolution=40)
DEEP = chain(
    "deep",
    stages=[Stage(8, 1, 2), Stage(16, 2, 2), Stage(24, 1, 2)],
    ops=("mbconv_k3_e3", "mbconv_k5_e3"),
    in_channels=3,
    resolution=96,
    classes=10,
    stem_channels=8,
    stem_stride=2,
    head_channels=32,
    reference_op="mbconv_k3_e3",
)


TINY = proxyless_small(classes=5, resolution=16)


def last_size(baseline: Baseline) -> int:
    """Height of the output of the last convolution."""
    layers = output_shapes(baseline.build, baseline.in_channels, baseline.resolution)
    return [shape[2] for layer, shape in layers if isinstance(layer, nn.Conv2d)][-1]


@cache
def described(name: str) -> nn.Module:
    """A baseline for three classes and with dropout, without values."""
    return on_meta(lambda: Baseline(name, classes=3).build(0.3))


@pytest.mark.parametrize("name", COUNTS)
def test_a_baseline_has_the_parameters_of_the_published_network(name: str) -> None:
    assert Baseline(name).num_params() == COUNTS[name]["params"]


@pytest.mark.parametrize("name", [name for name in COUNTS if "macs_m" in COUNTS[name]])
def test_a_baseline_has_the_macs_of_the_published_network(name: str) -> None:
    assert Baseline(name).macs() / 1e6 == pytest.approx(COUNTS[name]["macs_m"], abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "params_m", "macs_m"), [("nasnet_a", 5.3, 564), ("amoebanet_a", 5.1, 555)]
)
def test_cells_have_the_size_that_their_papers_print(
    name: str, params_m: float, macs_m: int
) -> None:
    baseline = Baseline(name)
    assert round(baseline.num_params() / 1e6, 1) == params_m
    assert round(baseline.macs() / 1e6) == macs_m


@pytest.mark.parametrize(("width", "params_m"), [("0.75", 2.6), ("0.5", 1.3), ("0.25", 0.5)])
def test_mobilenets_of_other_widths_have_the_size_that_the_paper_prints(
    width: str, params_m: float
) -> None:
    assert round(Baseline(f"mobilenet_v1_{width}").num_params() / 1e6, 1) == params_m


THEIRS: tuple[Any, ...] = (
    ("mobilenet_v2_0.5", "mobilenet_v2(width_mult=0.5)"),
    ("mnasnet_0.75", "mnasnet0_75()"),
    ("shufflenet_v2_0.5", "shufflenet_v2_x0_5()"),
    ("resnet18", "resnet18()"),
    *slow(
        ("shufflenet_v2_2.0", "shufflenet_v2_x2_0()"),
        ("mobilenet_v2_1.4", "mobilenet_v2(width_mult=1.4)"),
        ("mnasnet_1.3", "mnasnet1_3()"),
        ("resnet34", "resnet34()"),
        ("resnet50", "resnet50()"),
    ),
)
"""A baseline, and a torchvision function that builds the same network."""


def of_torchvision(theirs: str) -> nn.Module:
    from torchvision import models

    function, _, words = theirs.rstrip(")").partition("(")
    settings = {"width_mult": float(words.partition("=")[2])} if words else {}
    network: nn.Module = getattr(models, function)(weights=None, **settings)
    return network


Pair = tuple[nn.Module, nn.Module]


@pytest.fixture(scope="module", params=THEIRS, ids=lambda names: names[0])
def pair(request: pytest.FixtureRequest) -> Pair:
    """A baseline and the same network of torchvision, each with random weights of its own."""
    name, theirs = request.param
    return Baseline(name).build().eval(), of_torchvision(theirs).eval()


@torch.no_grad()
def test_a_baseline_with_the_weights_of_torchvision_answers_like_it(pair: Pair) -> None:
    ours, original = pair
    weights = dict(zip(ours.state_dict(), original.state_dict().values(), strict=True))
    images = torch.randn(2, 3, 64, 64)
    answer = torch.func.functional_call(ours, weights, (images,))
    torch.testing.assert_close(answer, original(images))


def test_weights_are_drawn_as_widely_as_by_torchvision(pair: Pair) -> None:
    ours, original = pair
    for mine, other in zip(ours.parameters(), original.parameters(), strict=True):
        if mine.numel() > 2000 or mine.dim() == 1:  # the deviation of fewer values is too uncertain
            assert float(mine.detach().std()) == pytest.approx(
                float(other.detach().std()), rel=0.1, abs=0.02
            )


@pytest.mark.parametrize("name", KINDS)
def test_every_batch_norm_has_momentum_a_tenth(name: str) -> None:
    norms = [m for m in described(name).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}


@pytest.mark.parametrize(
    "space",
    [
        pytest.param(SMALL, id="stride 4"),
        pytest.param(DEEP, id="stride 16", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", KINDS)
def test_total_stride_is_that_of_the_built_network(name: str, space: SearchSpace) -> None:
    baseline = for_space(name, space)
    assert baseline.total_stride * last_size(baseline) == space.resolution


@pytest.mark.parametrize("name", KINDS)
def test_sizes_that_strides_do_not_divide_are_rounded_up(name: str) -> None:
    assert last_size(Baseline(name, resolution=40)) == 2  # 20, 10, 5, 3, 2


@pytest.mark.parametrize("name", KINDS)
def test_strides_change_no_parameters(name: str) -> None:
    small = Baseline(name, classes=3, resolution=32, strides=(1, 2, 1, 1, 1))
    assert small.num_params() == sum(p.numel() for p in described(name).parameters())


def test_a_baseline_for_small_images_has_the_total_stride_of_their_space() -> None:
    for space in (SMALL, DEEP, proxyless_imagenet(resolution=64)):
        stride = space.stem_stride * prod(site.stride for site in space.sites)
        assert for_space("resnet34", space).total_stride == stride


def test_strides_stay_from_the_stem_on_as_long_as_the_space_has_some() -> None:
    assert strides_of(SMALL) == (1, 2, 2, 1, 1)
    assert strides_of(DEEP) == (2, 2, 2, 2, 1)


@pytest.mark.parametrize(("resolution", "stride"), [(127, 4), (128, 32)])
def test_from_128_pixels_on_strides_are_as_published(resolution: int, stride: int) -> None:
    space = proxyless_small(resolution=resolution)
    assert for_space("mobilenet_v2", space).total_stride == stride


@pytest.mark.parametrize("name", KINDS)
def test_a_training_step_at_batch_2_gives_every_weight_a_gradient(name: str) -> None:
    network = for_space(name, TINY).build(dropout=0.2).train()
    loss = nn.functional.cross_entropy(network(torch.randn(2, 1, 16, 16)), torch.tensor([0, 4]))
    loss.backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", ["mobilenet_v1", "mnasnet", "shufflenet_v2_0.5", "resnet18"])
def test_a_copy_of_a_baseline_answers_like_its_original(name: str) -> None:
    network = for_space(name, TINY).build().eval()
    images = torch.randn(1, 1, 16, 16)
    assert torch.equal(copy.deepcopy(network)(images), network(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_exports_with_a_free_batch_size(name: str) -> None:
    network = for_space(name, SMALL).build().eval()
    batch = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(network, (torch.randn(2, 1, 40, 40),), dynamic_shapes=(batch,))
    images = torch.randn(3, 1, 40, 40)
    torch.testing.assert_close(program.module()(images), network(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_trains_at_224_pixels(name: str) -> None:
    network = Baseline(name).build(dropout=0.2).train()
    loss = nn.functional.cross_entropy(network(torch.randn(2, 3, 224, 224)), torch.tensor([0, 9]))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", KINDS)
def test_dropout_stands_before_the_classifier(name: str) -> None:
    *_, dropout, classifier = [
        layer for layer in described(name).modules() if not list(layer.children())
    ]
    assert isinstance(dropout, nn.Dropout)
    assert isinstance(classifier, nn.Linear)
    assert (dropout.p, classifier.out_features) == (0.3, 3)


@pytest.mark.parametrize(
    "name", ["mobilenet_v1_0.25", "mnasnet_0.5", "shufflenet_v2_0.5", "resnet18"]
)
def test_weights_trained_with_dropout_fit_a_network_without(name: str) -> None:
    trained, plain = Baseline(name).build(0.5).eval(), on_meta(Baseline(name).build).eval()
    images = torch.randn(1, 3, 32, 32)
    answer = torch.func.functional_call(plain, trained.state_dict(), (images,), strict=True)
    assert torch.equal(answer, trained(images))


@pytest.mark.parametrize("baseline", [Baseline("darts"), for_space("mobilenet_v2_0.35", SMALL)])
def test_a_baseline_survives_json(baseline: Baseline) -> None:
    assert model_from_dict(baseline.to_dict()) == baseline


def test_json_of_an_architecture_gives_an_architecture() -> None:
    reference = Architecture.reference(SMALL)
    assert model_from_dict(reference.to_dict()) == reference


def test_equal_digests_mean_equal_baselines() -> None:
    different = [
        Baseline("darts"),
        Baseline("resnet34"),
        Baseline("darts", classes=10),
        Baseline("darts", in_channels=1),
        Baseline("darts", resolution=32),
        Baseline("darts", strides=(2, 2, 2, 2, 1)),
    ]
    assert len({baseline.digest() for baseline in different}) == len(different)
    assert Baseline.from_dict(different[-1].to_dict()).digest() == different[-1].digest()


def test_build_takes_images_classes_and_strides_of_a_space() -> None:
    network = build("mobilenet_v1_0.25", space=SMALL)
    like = for_space("mobilenet_v1_0.25", SMALL).build()
    assert str(network) == str(like)


def test_build_without_a_space_takes_those_of_imagenet() -> None:
    assert str(build("mobilenet_v1_0.25")) == str(Baseline("mobilenet_v1_0.25").build())


def test_what_build_is_told_goes_before_what_the_space_has() -> None:
    network = build("mobilenet_v1_0.25", classes=3, in_channels=2, resolution=224, space=SMALL)
    like = Baseline("mobilenet_v1_0.25", in_channels=2, classes=3).build()
    assert str(network) == str(like)


def is_name(name: str) -> bool:
    try:
        registry.check_name(name)
    except ValueError:
        return False
    return True


def test_names_of_baselines_are_accepted() -> None:
    scaled = ["mobilenet_v1_0.5", "mobilenet_v2_1", "mobilenet_v2_0.35", "mnasnet_1.3"]
    known = [*BASELINES, *scaled]
    assert [name for name in known if is_name(name)] == known


@pytest.mark.parametrize(
    "name", ["mobilenet", "mobilenet_v2_", "mobilenet_v2_0", "mobilenet_v2_-1", "darts_2", "_1"]
)
def test_other_names_are_refused_with_the_choices(name: str) -> None:
    with pytest.raises(ValueError, match="is not a baseline; expected one of mobilenet_v1, mobil"):
        registry.check_name(name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"classes": 0}, "classes of 'darts' is 0; expected 1 or more"),
        ({"strides": (2, 2)}, r"strides of 'darts' are \[2, 2\]; expected five"),
        ({"strides": (2, 2, 2, 2, 3)}, "then 1 or 2 each"),
        ({"strides": (0, 2, 2, 2, 2)}, "1 or more for the stem"),
    ],
)
def test_a_baseline_that_cannot_be_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Baseline("darts", **words)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "not a network: format 'list'; expected 'architecture/1' or 'baseline/1'"),
        ({"format": "baseline/2"}, "not a network: format 'baseline/2'"),
        ({"format": "baseline/1", "name": "darts"}, "this baseline cannot be read: 'strides'"),
        ({"format": "baseline/1", "name": 5, "strides": None}, "this baseline cannot be read"),
    ],
)
def test_what_is_no_network_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_from_dict(values)


def test_names_and_strides_are_known_without_torch() -> None:
    code = (
        "import sys; from nas_core import baselines, published, space;"
        "baselines.for_space('nasnet_a', space.proxyless_small()).digest();"
        "published.architecture('proxyless_cpu').digest();"
        "print({'torch', 'torchvision'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "set()"
