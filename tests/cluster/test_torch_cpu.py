"""torch on a CPU: compiled modules, threads, timed calls."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cluster.hardware import Target
from cluster.runtimes.torch_cpu import TorchCpu
from nas_core.architecture import Architecture
from tests.support.small_block import small_block, small_image, small_space

TARGET = Target(name="server", runtime="torch")


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return small_image()


@pytest.fixture(scope="module")
def program(images: Tensor) -> bytes:
    return TorchCpu(TARGET).compile(small_block().eval(), images)


def operations(program: bytes) -> list[str]:
    graph = torch.export.load(io.BytesIO(program)).graph
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def test_batch_norm_is_folded_into_the_convolution(program: bytes) -> None:
    assert operations(program) == ["aten.conv2d.default", "aten.hardtanh.default"]


@pytest.mark.slow
def test_no_batch_norm_is_left_in_a_network() -> None:
    space = small_space()
    network = Architecture.reference(space).build().eval()
    image = torch.zeros(1, space.in_channels, space.resolution, space.resolution)
    result = operations(TorchCpu(TARGET).compile(network, image))
    assert sum("conv" in item for item in result) > 10
    assert not any("batch_norm" in item for item in result)


def test_a_prepared_call_computes_without_gradients(program: bytes, images: Tensor) -> None:
    loaded = TorchCpu(TARGET).load(program)
    answer = loaded.prepared(images)()
    torch.testing.assert_close(answer, loaded(images), atol=0, rtol=0)
    assert isinstance(answer, Tensor)
    assert answer.is_inference()


def test_programs_run_on_as_many_threads_as_asked(program: bytes) -> None:
    for threads in (2, 1):
        TorchCpu(replace(TARGET, threads=threads)).load(program)
        assert torch.get_num_threads() == threads
