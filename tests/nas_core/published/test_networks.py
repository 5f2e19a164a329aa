"""Published networks, compared block by block with the released ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nas_core import published
from nas_core.architecture import Architecture
from nas_core.blocks import MBConv
from nas_core.network import Network
from tests.support.golden import golden

FACTS: dict[str, dict[str, Any]] = golden("published_architectures.json")["architectures"]


def network(name: str) -> Network:
    with torch.device("meta"):
        return published.architecture(name).build()


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def row(block: nn.Module) -> list[Any]:
    """A block as a row of the golden file."""
    assert isinstance(block, MBConv)
    *expand, depthwise, project = convolutions(block)
    in_channels = expand[0].in_channels if expand else depthwise.in_channels
    return [
        "mbconv",
        in_channels,
        project.out_channels,
        depthwise.kernel_size[0],
        depthwise.groups // in_channels,
        depthwise.stride[0],
        block.has_shortcut,
    ]


def test_the_published_networks_are_three() -> None:
    assert set(published.NAMES) == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_a_published_network_has_its_parameters(name: str) -> None:
    assert published.architecture(name).num_params() == FACTS[name]["params"]


@pytest.mark.parametrize("name", FACTS)
def test_a_published_network_has_its_macs(name: str) -> None:
    assert published.architecture(name).macs() == FACTS[name]["macs"]


@pytest.mark.parametrize("name", FACTS)
def test_a_published_network_has_its_skips(name: str) -> None:
    skipped = [op == "skip" for op in published.architecture(name).ops]
    # The golden file starts with the fixed block before the sites.
    assert skipped == [block[0] == "skip" for block in FACTS[name]["blocks"][1:]]
    assert sum(skipped) == FACTS[name]["skips"]


@pytest.mark.parametrize("name", FACTS)
def test_a_published_network_has_its_blocks(name: str) -> None:
    built = network(name)
    blocks = [built.stem[-1], *built.blocks]
    assert [row(block) for block in blocks] == [
        block for block in FACTS[name]["blocks"] if block[0] != "skip"
    ]


@pytest.mark.parametrize("name", FACTS)
def test_a_published_network_has_its_stem_and_head(name: str) -> None:
    built, facts = network(name), FACTS[name]
    first, mix = built.stem[0], built.head[0]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(mix, nn.Conv2d)
    kernel, stride = first.kernel_size[0], first.stride[0]
    assert [first.in_channels, first.out_channels, kernel, stride] == facts["first_conv"]
    assert [mix.in_channels, mix.out_channels, mix.kernel_size[0]] == facts["feature_mix"]
    assert [built.head[-1].in_features, built.head[-1].out_features] == facts["classifier"]


@pytest.mark.parametrize("name", FACTS)
def test_a_published_network_has_its_batch_norm(name: str) -> None:
    norms = [m for m in network(name).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, FACTS[name]["bn_eps"])}


def test_a_published_network_takes_other_images_and_classes() -> None:
    result = published.architecture("proxyless_gpu", classes=7, in_channels=1, resolution=40)
    assert result.build().eval()(torch.zeros(2, 1, 40, 40)).shape == (2, 7)


def test_a_published_network_survives_json() -> None:
    result = published.architecture("proxyless_cpu")
    assert Architecture.from_json(result.to_json()) == result


def test_an_unknown_network_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="expected one of proxyless_cpu, proxyless_gpu, proxyless"):
        published.architecture("proxyless")
