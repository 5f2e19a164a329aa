"""Networks of cells: operations, wiring, and published sizes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_core.baselines.cell_ops import CELL_OPS, FactorizedReduction, build_cell_op
from nas_core.baselines.cells import Cell, CellNetwork, Feature
from nas_core.baselines.genotypes import (
    AMOEBANET_A_MOBILE,
    DARTS_IMAGENET,
    DARTS_V2,
    NASNET_A,
    NASNET_A_MOBILE,
    CellPlan,
    Genotype,
    Wiring,
)
from nas_core.baselines.registry import Baseline
from nas_core.shapes import OpShape
from tests.support.golden import golden

FACTS = golden("cell_genotypes.json")
TRANSCRIBED: dict[str, dict[str, Any]] = FACTS["genotypes"]
RELEASED: dict[str, dict[str, Any]] = FACTS["released"]
PLANS = {"nasnet_a": NASNET_A_MOBILE, "amoebanet_a": AMOEBANET_A_MOBILE, "darts": DARTS_IMAGENET}
TINY = Baseline("darts", in_channels=1, resolution=40, classes=3, strides=(1, 2, 2, 1, 1))


def params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(plan: CellPlan, channels: int = 8) -> CellPlan:
    """A network with the same cells, one per stage, narrow."""
    return CellPlan(
        genotype=plan.genotype,
        channels=channels,
        stem=plan.stem,
        stem_channels=channels,
        bn_eps=plan.bn_eps,
        ends_with_relu=plan.ends_with_relu,
        cells_per_stage=1,
    )


def outputs(wiring: Wiring) -> list[str]:
    """Outputs of a cell as expressions of its inputs, independent of the order of nodes."""
    states = ["earlier", "previous"]
    for left, right in zip(wiring.edges[::2], wiring.edges[1::2], strict=True):
        states.append(f"({' + '.join(sorted(f'{op} {states[i]}' for op, i in (left, right)))})")
    return sorted(states[state] for state in wiring.outputs)


def released(name: str, kind: str) -> Wiring:
    """The cells of a release, in our notation."""
    facts = RELEASED[name][kind]
    words = {"none": "skip_connect", "1x7_7x1": "conv_7x1_1x7"}
    words |= {f"separable_{k}x{k}_2": f"sep_conv_{k}x{k}" for k in (3, 5, 7)}
    ops = [words.get(op, op) for op in facts["operations"]]
    starts = [1 - start if start < 2 else start for start in facts["inputs"]]
    unused = [state for state, is_used in enumerate(facts["used"]) if not is_used]
    return Wiring(
        tuple(zip(ops, starts, strict=True)),
        tuple(1 - state if state < 2 else state for state in unused),
    )


@pytest.mark.parametrize("name", RELEASED)
def test_cells_compute_what_their_authors_released(name: str) -> None:
    genotype = PLANS[name].genotype
    assert outputs(genotype.normal) == outputs(released(name, "normal"))
    assert outputs(genotype.reduce) == outputs(released(name, "reduce"))


@pytest.mark.parametrize(("name", "genotype"), [("nasnet_a", NASNET_A), ("darts_v2", DARTS_V2)])
def test_cells_have_the_edges_that_were_transcribed(name: str, genotype: Genotype) -> None:
    for kind, wiring in (("normal", genotype.normal), ("reduce", genotype.reduce)):
        assert list(wiring.edges) == [tuple(edge) for edge in TRANSCRIBED[name][kind]]


def test_the_cells_of_darts_put_out_all_their_nodes() -> None:
    facts = TRANSCRIBED["darts_v2"]
    assert DARTS_V2.normal.outputs == tuple(facts["normal_concat"]) == (2, 3, 4, 5)
    assert DARTS_V2.reduce.outputs == tuple(facts["reduce_concat"]) == (2, 3, 4, 5)


@pytest.mark.parametrize(("name", "channels"), [("nasnet_a", 1056), ("darts", 768)])
def test_networks_of_cells_end_with_the_published_channels(name: str, channels: int) -> None:
    with torch.device("meta"):
        network = CellNetwork(PLANS[name], Baseline(name))
    classifier = network.head[-1]
    assert isinstance(classifier, nn.Linear)
    assert classifier.in_features == channels


def test_darts_has_14_cells() -> None:
    assert [kind for kind, _ in DARTS_IMAGENET.cells()].count("normal") == 12
    assert len(list(DARTS_IMAGENET.cells())) == 14


def test_channels_double_at_every_reduction() -> None:
    widths = [channels for kind, channels in NASNET_A_MOBILE.cells() if kind == "reduce"]
    assert widths == [11, 22, 88, 176]


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_a_separable_convolution_is_applied_twice(kernel: int) -> None:
    # Each time k*k*C depthwise, C*C pointwise, 2*C in its BatchNorm.
    op = build_cell_op(f"sep_conv_{kernel}x{kernel}", OpShape(6, 6, 2))
    assert params(op) == 2 * (kernel**2 * 6 + 6 * 6 + 2 * 6)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_dilated_convolution_is_applied_once(kernel: int) -> None:
    op = build_cell_op(f"dil_conv_{kernel}x{kernel}", OpShape(6, 6, 1))
    assert params(op) == kernel**2 * 6 + 6 * 6 + 2 * 6


def test_a_dilated_convolution_sees_every_second_pixel() -> None:
    op = build_cell_op("dil_conv_5x5", OpShape(1, 1, 1)).eval()
    image = torch.zeros(1, 1, 21, 21)
    image[0, 0, 10, 10] = 1.0
    seen = op(image)[0, 0].nonzero()
    assert {tuple(pixel) for pixel in seen.tolist()} == {
        (y, x) for y in range(6, 15, 2) for x in range(6, 15, 2)
    }


def test_the_rectangular_convolution_works_on_a_quarter_of_the_channels() -> None:
    # 1x1 from 8 to 2 channels, 1x7 and 7x1 on 2, 1x1 from 2 to 8; each with its BatchNorm.
    expected = (8 * 2 + 2 * 2) + 2 * (7 * 2 * 2 + 2 * 2) + (2 * 8 + 2 * 8)
    assert params(build_cell_op("conv_7x1_1x7", OpShape(8, 8, 1))) == expected


@pytest.mark.parametrize("name", CELL_OPS)
@pytest.mark.parametrize(("out_channels", "stride"), [(6, 1), (6, 2), (7, 2)])
def test_operations_round_the_size_up(name: str, out_channels: int, stride: int) -> None:
    op = build_cell_op(name, OpShape(6, out_channels, stride)).eval()
    for size in (8, 5, 1):
        expected = (2, out_channels, -(-size // stride), -(-size // stride))
        assert op(torch.randn(2, 6, size, size)).shape == expected


def test_padding_does_not_count_in_a_mean() -> None:
    pool = build_cell_op("avg_pool_3x3", OpShape(2, 2, 1))
    assert torch.equal(pool(torch.full((1, 2, 5, 5), 3.0)), torch.full((1, 2, 5, 5), 3.0))


@pytest.mark.parametrize("size", [4, 5])
def test_a_reduction_takes_even_and_odd_pixels(size: int) -> None:
    reduction = FactorizedReduction(1, 2, eps=0.0).eval()
    for convolution in (reduction.even, reduction.odd):
        nn.init.ones_(convolution.weight)
    image = torch.randn(1, 1, size, size)
    halved = reduction(image)[0]
    odd = image[0, 0, 1::2, 1::2]
    assert torch.equal(halved[0], image[0, 0, ::2, ::2])
    assert torch.equal(halved[1, : odd.shape[0], : odd.shape[1]], odd)
    assert halved[1].count_nonzero() == odd.numel()


def test_a_cell_adds_its_edges_and_puts_out_what_it_is_told_to() -> None:
    wiring = Wiring(
        edges=(("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 2), ("max_pool_3x3", 0)),
        outputs=(0, 3),
    )
    cell = Cell(wiring, 4, 1, previous=Feature(3, 2), earlier=Feature(2, 1), eps=0.0).eval()
    earlier, previous = torch.randn(1, 2, 8, 8), torch.randn(1, 3, 4, 4)
    first, second = cell.earlier(earlier), cell.previous(previous)
    pooled = nn.functional.max_pool2d(first, 3, 1, 1)
    expected = torch.cat([first, first + second + pooled], dim=1)
    torch.testing.assert_close(cell(earlier, previous), expected)
    assert cell.feature == Feature(8, 2)


def test_only_edges_from_inputs_have_the_stride() -> None:
    wiring = Wiring(
        edges=(("max_pool_3x3", 0), ("avg_pool_3x3", 1), ("max_pool_3x3", 2), ("skip_connect", 2)),
        outputs=(3,),
    )
    cell = Cell(wiring, 4, 2, previous=Feature(4, 1), earlier=Feature(4, 1), eps=0.0).eval()
    assert cell(torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)).shape == (1, 4, 4, 4)


@pytest.mark.parametrize("name", PLANS)
def test_every_weight_of_a_network_of_cells_has_a_part_in_its_answer(name: str) -> None:
    torch.manual_seed(0)  # a channel that is cut off for all of a few images has no gradient
    network = CellNetwork(small(PLANS[name]), TINY)
    answer: Tensor = network(torch.randn(2, 1, 40, 40))
    answer.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.slow
def test_a_network_of_cells_exports_with_a_free_batch_size() -> None:
    network = CellNetwork(small(DARTS_IMAGENET), TINY).eval()
    batch = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(network, (torch.randn(2, 1, 40, 40),), dynamic_shapes=(batch,))
    images = torch.randn(3, 1, 40, 40)
    torch.testing.assert_close(program.module()(images), network(images))


@pytest.mark.parametrize("name", PLANS)
def test_a_copy_answers_like_its_original(name: str) -> None:
    network = CellNetwork(small(PLANS[name]), TINY).eval()
    images = torch.randn(1, 1, 40, 40)
    assert torch.equal(copy.deepcopy(network)(images), network(images))


def test_an_unknown_operation_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="'sep_conv_9x9' is not an operation of cells; expected"):
        build_cell_op("sep_conv_9x9", OpShape(4, 4, 1))


@pytest.mark.parametrize(
    ("ops", "outputs", "message"),
    [
        ((("skip_connect", 0),), (2,), "a cell with 1 edges; expected two per node"),
        ((("skip_connect", 0), ("skip_connect", 2)), (2,), "edge 1 applies 'skip_connect' to st"),
        (
            (("skip_connect", 0), ("skip_connect", 1)),
            (3,),
            r"states \[3\]; expected states below 3",
        ),
    ],
)
def test_a_wiring_that_cannot_be_is_refused(
    ops: tuple[tuple[str, int], ...], outputs: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Wiring(ops, outputs)


def test_a_reduction_cell_that_passes_its_input_on_is_refused() -> None:
    with pytest.raises(ValueError, match=r"states \[0, 2\]; expected nodes alone"):
        Genotype(DARTS_V2.normal, Wiring(DARTS_V2.reduce.edges, (0, 2)))
