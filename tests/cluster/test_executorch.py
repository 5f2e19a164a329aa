"""ExecuTorch: a compiled module answers like the module, and can be timed."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cluster.hardware import TARGETS
from cluster.runtimes import MeasurementError, runtime_of
from cluster.runtimes.executorch import ExecuTorch
from cluster.runtimes.timing import time_calls


@pytest.fixture(scope="module")
def runtime() -> ExecuTorch:
    return ExecuTorch(TARGETS["mobile"].on_host())


@pytest.fixture(scope="module")
def block() -> nn.Module:
    """A convolution with batch norm that has seen images, in the layout that training uses."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
    )
    module.to(memory_format=torch.channels_last)
    for _ in range(3):
        module(3 * torch.randn(8, 3, 16, 16) + 1)
    return module


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def program(runtime: ExecuTorch, block: nn.Module, images: Tensor) -> bytes:
    return runtime.compile(block, images)


def eager(block: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return block.eval()(images)


def test_a_compiled_module_answers_like_the_module(
    runtime: ExecuTorch, program: bytes, block: nn.Module, images: Tensor
) -> None:
    loaded = runtime.load(program)
    other = 2 * torch.randn(1, 3, 16, 16)
    for example in (images, other, other.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(loaded(example), eager(block, example), atol=1e-4, rtol=0)


def test_answers_stay_when_the_program_runs_again(runtime: ExecuTorch, program: bytes) -> None:
    loaded = runtime.load(program)
    first = loaded(torch.zeros(1, 3, 16, 16))
    kept = first.clone()
    loaded(torch.ones(1, 3, 16, 16))
    torch.testing.assert_close(first, kept, atol=0, rtol=0)


def test_compiling_leaves_the_module_as_it_was(
    runtime: ExecuTorch, block: nn.Module, images: Tensor
) -> None:
    block.train()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    runtime.compile(block, images)
    assert block.training
    assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())


def test_a_prepared_call_outlives_its_program(
    runtime: ExecuTorch, program: bytes, images: Tensor
) -> None:
    calls = [runtime.load(bytes(bytearray(program))).prepared(images.clone()) for _ in range(20)]
    gc.collect()
    # A call into memory that was freed would end the process, not raise.
    assert [call() for call in calls] == [None] * 20


def test_the_overhead_of_a_call_is_measurable(runtime: ExecuTorch, images: Tensor) -> None:
    nothing = runtime.load(runtime.compile(nn.Identity(), images))
    torch.testing.assert_close(nothing(images), images)
    (timing,) = time_calls([nothing.prepared(images)])
    assert 0 < timing.median_ms < 0.1


def test_a_wider_convolution_takes_longer(
    runtime: ExecuTorch, program: bytes, images: Tensor
) -> None:
    wide = runtime.compile(nn.Conv2d(3, 256, 3, padding=1), images)
    timings = time_calls([runtime.load(data).prepared(images) for data in (program, wide)])
    assert timings[1].median_ms > 3 * timings[0].median_ms


def test_programs_run_on_as_many_threads_as_asked(runtime: ExecuTorch, program: bytes) -> None:
    from executorch.extension.pybindings import _C

    for threads in (2, 1):
        ExecuTorch(replace(TARGETS["mobile"].on_host(), threads=threads)).load(program)
        assert _C._threadpool_get_thread_count() == threads


def test_bytes_that_are_no_program_are_refused(
    runtime: ExecuTorch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MeasurementError, match="cannot load the program"):
        runtime.load(b"no program" * 100)
    assert "Program identifier" in capfd.readouterr().err  # what the library says is not held back


def test_the_library_is_quiet_when_all_is_well(
    runtime: ExecuTorch, program: bytes, images: Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    ExecuTorch(replace(TARGETS["mobile"].on_host(), threads=2)).load(program)
    runtime.load(program)(images)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_runtime_is_found_by_name() -> None:
    runtime = runtime_of(TARGETS["mobile"].on_host())
    assert runtime.name == "executorch"
    assert runtime.version().startswith("1.5")
