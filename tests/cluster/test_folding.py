"""Networks with folded BatchNorms have the same outputs, and are copies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cluster.runtimes.folding import folded
from nas_core.baselines.registry import Baseline
from tests.support.small_block import small_block, small_image


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def with_statistics(network: nn.Module) -> nn.Module:
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return network


def test_a_folded_network_answers_as_the_network() -> None:
    torch.manual_seed(0)
    network = with_statistics(Baseline("mobilenet_v2", classes=5, resolution=64).build()).eval()
    images = torch.randn(2, 3, 64, 64)
    lean = folded(network)
    assert (norms(network), norms(lean)) == (52, 0)
    with torch.no_grad():
        torch.testing.assert_close(lean(images), network(images), rtol=1e-4, atol=1e-4)


def test_the_network_itself_is_left_as_it_is() -> None:
    network = with_statistics(small_block()).to(memory_format=torch.channels_last).train()
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    lean = folded(network)
    assert network.training
    assert not lean.training
    assert norms(network) == 1
    for name, value in network.state_dict().items():
        assert torch.equal(value, kept[name])


@pytest.mark.parametrize("between", [nn.ReLU(), nn.MaxPool2d(2)])
def test_a_batch_norm_that_follows_no_convolution_stays(between: nn.Module) -> None:
    network = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), between, nn.BatchNorm2d(4))).eval()
    lean = folded(network)
    assert norms(lean) == 1
    with torch.no_grad():
        assert torch.equal(lean(small_image()), network(small_image()))
