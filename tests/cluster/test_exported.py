"""Programs of torch.export: same outputs as the module, no BatchNorms, no pickles."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch
from torch import Tensor, nn

from cluster.runtimes.base import MeasurementError
from cluster.runtimes.exported import BATCH_NORM, export, read
from nas_core.ops import build_op
from nas_core.shapes import OpShape


def trained(module: nn.Module, channels: int) -> nn.Module:
    """`module` with BatchNorm statistics of some images."""
    for _ in range(3):
        module(3 * torch.randn(8, channels, 12, 12) + 1)
    return module.eval().requires_grad_(False)


def batch_norms(program: bytes) -> int:
    return len(read(program).graph.find_nodes(op="call_function", target=BATCH_NORM))


class Twice(nn.Module):
    """One convolution, used twice, each time followed by another BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.first, self.second = nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.convolution(self.first(self.convolution(x)).relu()))
        return y


class UsedElsewhere(nn.Module):
    """A convolution whose output also bypasses the BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        z: Tensor = y + self.norm(y)
        return z


BLOCKS = {
    "depthwise": build_op("mbconv_k5_e3", OpShape(8, 8, 1)),
    "squeeze-and-excite, stride 2": build_op("mbconv_k3_e6_se", OpShape(8, 16, 2)),
    "h-swish": build_op("mbconv_k7_e3_hswish", OpShape(8, 16, 1)),
    "bias": nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16)),
    "padding by name": nn.Sequential(nn.Conv2d(8, 16, 3, padding="same"), nn.BatchNorm2d(16)),
    "nothing learnt": nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16, affine=False)),
    "a convolution used twice": Twice(),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BLOCKS)
def test_a_program_without_batch_norms_answers_like_the_module(what: str) -> None:
    module, x = trained(BLOCKS[what], 8), torch.randn(2, 8, 12, 12)
    program = export(module, x)
    torch.testing.assert_close(read(program).module()(x), module(x), atol=1e-4, rtol=0)
    assert batch_norms(program) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8)),
        nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)),
        nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)),
        UsedElsewhere(),
    ],
    ids=["behind another op", "in front", "statistics of the batch", "used elsewhere"],
)
def test_a_batch_norm_that_cannot_be_folded_stays(module: nn.Module) -> None:
    module, x = trained(module, 8), torch.randn(2, 8, 12, 12)
    program = export(module, x)
    torch.testing.assert_close(read(program).module()(x), module(x), atol=1e-4, rtol=0)
    assert batch_norms(program) == 1


@pytest.mark.slow
def test_a_program_holds_folded_weights_and_no_others() -> None:
    module = trained(BLOCKS["depthwise"], 8)
    program = read(export(module, torch.zeros(1, 8, 12, 12)))
    shapes = [tuple(value.shape) for value in program.state_dict.values()]
    assert sorted(shapes) == sorted(
        [(24, 8, 1, 1), (24,), (24, 1, 5, 5), (24,), (8, 24, 1, 1), (8,)]
    )


@pytest.mark.slow
def test_a_program_is_not_larger_for_larger_inputs() -> None:
    module = nn.Conv2d(8, 8, 1)
    small, large = (export(module, torch.zeros(n, 8, 12, 12)) for n in (1, 64))
    assert len(large) < len(small) + 1000


@pytest.mark.slow
def test_a_program_that_holds_a_pickle_is_refused() -> None:
    buffer = io.BytesIO()
    x = torch.zeros(1, 8, 4, 4)
    torch.export.save(torch.export.export(nn.Conv2d(8, 8, 1), (x,)), buffer)  # keeps its example
    with pytest.raises(MeasurementError, match=r"sample_inputs/model\.pt, which may run code"):
        read(buffer.getvalue())


@pytest.mark.slow
def test_a_program_that_holds_a_library_is_refused() -> None:
    buffer = io.BytesIO(export(nn.Conv2d(8, 8, 1), torch.zeros(1, 8, 4, 4)))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/data/aotinductor/model/model.so", b"")
    with pytest.raises(MeasurementError, match="may run code"):
        read(buffer.getvalue())


@pytest.mark.parametrize("data", [b"", b"no program" * 100])
def test_bytes_that_are_no_program_are_refused(data: bytes) -> None:
    with pytest.raises(MeasurementError, match=r"cannot load the program .*; compile it again"):
        read(data)


@pytest.mark.slow
def test_a_torn_program_is_refused() -> None:
    program = export(nn.Conv2d(8, 8, 1), torch.zeros(1, 8, 4, 4))
    with pytest.raises(MeasurementError, match="cannot load the program"):
        read(program[: len(program) // 2])
