"""MobileNetV2 as a chain of our ops, compared with torchvision's class."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_core.architecture import Architecture
from nas_core.space import SearchSpace, Stage, chain

# Width, blocks and stride of the stages with expansion 6 (Sandler et al. 2018, table 2).
STAGES = [(24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]


def as_chain() -> SearchSpace:
    return chain(
        "mobilenet_v2",
        stages=[Stage(*stage) for stage in STAGES],
        ops=("mbconv_k3_e6", "mbconv_k3_e3"),
        in_channels=3,
        resolution=224,
        classes=1000,
        stem_channels=32,
        stem_stride=2,
        first_channels=16,
        head_channels=1280,
        bn_eps=1e-5,
    )


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, nn.Module]:
    """Our network with torchvision's weights and non-initial statistics, and torchvision's own."""
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    theirs = mobilenet_v2()
    for name, values in theirs.state_dict().items():
        if name.endswith("running_var"):
            values.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            values.normal_(0.0, 0.1)
    ours = Architecture.reference(as_chain()).build(dropout=0.2)
    values = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    return ours.double(), theirs.double()


def test_the_chain_has_the_parameters_of_mobilenet_v2() -> None:
    assert Architecture.reference(as_chain()).num_params() == 3_504_872


def test_the_chain_has_the_multiply_accumulates_of_mobilenet_v2() -> None:
    assert Architecture.reference(as_chain()).macs() == 300_774_272


@pytest.mark.slow
@torch.no_grad()
def test_the_chain_answers_like_mobilenet_v2(pair: tuple[nn.Module, nn.Module]) -> None:
    images = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    ours, theirs = (network.eval()(images) for network in pair)
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_the_chain_has_the_gradients_of_mobilenet_v2(pair: tuple[nn.Module, nn.Module]) -> None:
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    grads = []
    for network in pair:
        torch.manual_seed(1)  # of the dropout
        network.train()(images).square().sum().backward()
        grads.append([p.grad for p in network.parameters()])
    for our, their in zip(*grads, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-6, atol=1e-9)
