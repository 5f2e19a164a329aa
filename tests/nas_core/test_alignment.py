"""Candidate ops of a site start as one function and then train independent weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_core.blocks import initialise
from nas_core.ops import build_op
from nas_core.search import start_search
from nas_core.search_settings import SearchSettings
from nas_core.shapes import OpShape
from nas_core.space import MOBILE_OPS, Stage, chain
from nas_core.supernet import Supernet, align

KERNELS = [f"mbconv_k{k}_e{e}" for k in (3, 5, 7) for e in (3, 6)]
CROSSED = ["mbconv_k3_e6", "mbconv_k7_e3"]  # neither contains the other
SEPARABLE = ["sepconv_k3", "sepconv_k5", "sepconv_k7"]
CHANGES, KEEPS = OpShape(8, 12, 2), OpShape(8, 8, 1)


def site(names: list[str], shape: OpShape, *, aligned: bool = True) -> list[nn.Module]:
    ops = nn.ModuleList(build_op(name, shape) for name in names)
    initialise(ops, torch.Generator().manual_seed(0))
    if aligned:
        align(ops)
    return list(ops)


def images() -> torch.Tensor:
    return torch.randn(4, 8, 10, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("names", [KERNELS, CROSSED, SEPARABLE])
def test_ops_of_a_site_that_changes_the_shape_begin_equal(names: list[str]) -> None:
    first, *others = [op.train()(images()) for op in site(names, CHANGES)]
    assert first.std() > 0.1
    for other in others:
        torch.testing.assert_close(other, first, atol=1e-5, rtol=1e-4)


def test_without_it_they_differ() -> None:
    first, second = (op(images()) for op in site(CROSSED, CHANGES, aligned=False))
    assert (first - second).std() > 0.5


@pytest.mark.parametrize("names", [[*KERNELS, "skip"], ["mbconv_k3_e3_se", "sepconv_k3", "skip"]])
def test_ops_of_a_site_that_can_be_skipped_begin_as_the_skip(names: list[str]) -> None:
    for op in site(names, KEEPS):
        torch.testing.assert_close(op.train()(images()), images())


def test_squeezed_ops_begin_nearly_equal() -> None:
    plain, squeezed = (
        op.train()(images()) for op in site(["mbconv_k3_e3", "mbconv_k3_e3_se"], CHANGES)
    )
    similar = torch.corrcoef(torch.stack([plain.flatten(), squeezed.flatten()]))[0, 1]
    assert similar > 0.95


@pytest.mark.parametrize("shape", [CHANGES, KEEPS])
def test_no_weight_is_stuck(shape: OpShape) -> None:
    wanted = torch.randn_like(site(KERNELS, shape)[0](images()))
    for op in site(KERNELS, shape):
        before = [p.detach().clone() for p in op.parameters()]
        sgd = torch.optim.SGD(op.parameters(), lr=0.5)
        for _ in range(10):
            sgd.zero_grad()
            (op.train()(images()) - wanted).square().mean().backward()
            sgd.step()
        for old, new in zip(before, op.parameters(), strict=True):
            assert (old != new).float().mean() > 0.5


def test_a_search_begins_so_unless_it_is_told_otherwise() -> None:
    stages = [Stage(8, 2, 2)]  # the second site can be skipped
    space = chain(
        "small",
        stages=stages,
        ops=MOBILE_OPS,
        in_channels=1,
        resolution=8,
        classes=3,
        stem_channels=8,
        stem_stride=2,
        head_channels=8,
    )
    cpu = torch.device("cpu")
    drawn = Supernet(space, torch.Generator().manual_seed(0))
    drawn.align()
    norms = [op.layers[-1].weight.abs().sum() for op in drawn.sites[1] if hasattr(op, "layers")]
    assert norms == [0] * 6
    aligned = start_search(space, SearchSettings(), 0, cpu).supernet
    independent = start_search(space, SearchSettings(op_start="independent"), 0, cpu).supernet
    again = Supernet(space, torch.Generator())
    again.load_state_dict(independent.state_dict())
    again.align()
    for name, value in again.state_dict().items():
        assert torch.equal(value, aligned.state_dict()[name]), name


def test_warm_ups_that_begin_otherwise_are_others() -> None:
    one, other = SearchSettings(), SearchSettings(op_start="independent")
    assert one.warmup_facts() != other.warmup_facts()
    assert one.outcome_facts() != other.outcome_facts()
