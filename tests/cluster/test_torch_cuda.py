"""torch on a GPU: programs, and timing by the GPU's clock. Most tests need no GPU."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cluster.hardware import TARGETS
from cluster.runtimes.base import MeasurementError
from cluster.runtimes.timing import time_calls
from cluster.runtimes.torch_cuda import WARM_UPS, TorchCuda, TorchCudaProgram
from tests.support.fake_gpu import FakeDevice

GPU = TARGETS["gpu"]
ERRORS = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Largest difference from fp32 on a CPU, for outputs around 1."""


class Recorder:
    """Replaces a module; records its arguments and the settings at each call."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.inputs: list[Tensor] = []
        self.settings: list[tuple[object, ...]] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.log.append("run")
        self.inputs.append(images)
        self.settings.append(settings())
        return images


def settings() -> tuple[object, ...]:
    """Current cuDNN benchmark mode, and fp32 precision of convolutions and matrix products."""
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    return cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def block() -> nn.Module:
    """Convolutions with BatchNorm statistics of some images, in the memory format of training."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.BatchNorm2d(16),
    )
    module.to(memory_format=torch.channels_last)
    for _ in range(3):
        module(3 * torch.randn(8, 3, 16, 16) + 1)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def program(block: nn.Module) -> bytes:
    return TorchCuda(GPU).compile(block, torch.zeros(8, 3, 16, 16))


def test_times_are_the_clock_of_the_device() -> None:
    device = FakeDevice(replay_ms=0.25)
    runtime = TorchCuda(GPU, device)
    call = device.capture(lambda: None)
    assert [runtime.run_ms(call, times) for times in (1, 3, 40)] == [0.25, 0.75, 10.0]


def test_time_of_the_host_is_not_in_it() -> None:
    device = FakeDevice(replay_ms=0.25, host_s=0.01)
    assert TorchCuda(GPU, device).run_ms(device.capture(lambda: None), 3) == 0.75


def test_replays_run_between_two_events_on_a_device_that_was_idle() -> None:
    device = FakeDevice()
    call = device.capture(lambda: None)
    device.log.clear()
    TorchCuda(GPU, device).run_ms(call, 3)
    assert device.log == ["synchronize", "record", *["replay"] * 3, "record", "wait"]


def test_programs_are_timed_against_each_other() -> None:
    device, calls = FakeDevice(), []
    for device.replay_ms in (0.25, 40.0):
        calls.append(device.capture(lambda: None))
    runtime = TorchCuda(GPU, device)
    timings = time_calls(calls, run_ms=runtime.run_ms, rest=runtime.rest)
    assert [timing.median_ms for timing in timings] == [0.25, 40.0]


def test_a_capture_follows_a_warm_up_on_another_stream(images: Tensor) -> None:
    device = FakeDevice()
    TorchCudaProgram(Recorder(device.log), device, torch.float32).prepared(images)
    assert device.log == ["aside", *["run"] * WARM_UPS, "back", "capture", "run"]


def test_a_prepared_call_only_replays(images: Tensor) -> None:
    device = FakeDevice()
    call = TorchCudaProgram(Recorder(device.log), device, torch.float32).prepared(images)
    device.log.clear()
    call()
    assert device.log == ["replay"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_input_is_one_tensor_in_the_order_and_precision_of_the_gpu(
    images: Tensor, dtype: torch.dtype
) -> None:
    device = FakeDevice()
    module = Recorder(device.log)
    TorchCudaProgram(module, device, dtype).prepared(images)
    assert {(item.data_ptr(), item.dtype) for item in module.inputs} == {
        (module.inputs[0].data_ptr(), dtype)
    }
    assert module.inputs[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(module.inputs[0].float(), images, atol=2e-2, rtol=0)


def test_a_prepared_call_does_not_see_what_becomes_of_its_images(images: Tensor) -> None:
    device = FakeDevice()
    module = Recorder(device.log)
    given = images.to(memory_format=torch.channels_last)
    TorchCudaProgram(module, device, torch.float32).prepared(given)
    given.zero_()
    torch.testing.assert_close(module.inputs[0], images)


def test_kernels_are_chosen_by_trial_and_without_tf32(images: Tensor) -> None:
    device, before = FakeDevice(), settings()
    module = Recorder(device.log)
    loaded = TorchCudaProgram(module, device, torch.float32)
    loaded.prepared(images)
    loaded(images)
    assert set(module.settings) == {(True, "ieee", "ieee")}
    assert settings() == before


@pytest.mark.parametrize("precision", ERRORS)
def test_a_program_answers_like_the_module(
    program: bytes, block: nn.Module, images: Tensor, precision: str
) -> None:
    loaded = TorchCuda(replace(GPU, precision=precision), FakeDevice()).load(program)
    for example in (images, images.to(memory_format=torch.channels_last)):
        answer = loaded(example)
        torch.testing.assert_close(answer, block(example), atol=ERRORS[precision], rtol=0)


@pytest.mark.parametrize("precision", ERRORS)
def test_the_replayed_computation_is_in_the_precision_of_the_target(
    program: bytes, images: Tensor, precision: str
) -> None:
    loaded = TorchCuda(replace(GPU, precision=precision), FakeDevice()).load(program)
    answer = loaded.prepared(images)()
    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    assert isinstance(answer, Tensor)
    assert answer.dtype == dtypes[precision]
    assert answer.is_contiguous(memory_format=torch.channels_last)


def test_compiling_needs_no_gpu_and_leaves_the_module_as_it_was(images: Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    TorchCuda(GPU).compile(module, images)
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_images_of_another_shape_are_refused(program: bytes) -> None:
    loaded = TorchCuda(GPU, FakeDevice()).load(program)
    with pytest.raises(RuntimeError, match="shape"):
        loaded(torch.zeros(2, 3, 16, 16))


def test_bytes_that_are_no_program_are_refused() -> None:
    with pytest.raises(MeasurementError, match="cannot load the program"):
        TorchCuda(GPU, FakeDevice()).load(b"no program" * 100)


def test_facts_tell_that_fp32_is_not_tf32() -> None:
    assert TorchCuda(GPU, FakeDevice()).facts() == {"gpu": "Stand-in", "tf32": "off"}


def test_the_version_is_that_of_torch_and_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.15.0")
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert TorchCuda(GPU).version() == "2.15.0, CUDA 13.2"


def test_a_torch_without_cuda_is_refused_where_it_would_run(
    program: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(MeasurementError, match=r"^target 'gpu' needs an NVIDIA GPU.*without CUDA"):
        TorchCuda(GPU).load(program)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_machine_without_a_gpu_is_refused(program: bytes) -> None:
    line = r"this machine has none: .+; run the job on a cluster whose node offers GPU, or name"
    with pytest.raises(MeasurementError, match=line):
        TorchCuda(GPU).load(program)


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that needs a real GPU."""
    here = pytest.mark.skipif(
        not torch.cuda.is_available(),
        reason="needs a CUDA device: torch.cuda.is_available() is false on this machine",
    )
    marked: Callable[..., None] = pytest.mark.gpu(here(test))
    return marked


@on_gpu
@pytest.mark.parametrize("precision", ERRORS)
def test_a_gpu_answers_like_the_module(
    program: bytes, block: nn.Module, images: Tensor, precision: str
) -> None:
    loaded = TorchCuda(replace(GPU, precision=precision)).load(program)
    other = 2 * images
    for example in (images, other):
        answer = loaded(example)
        torch.testing.assert_close(answer, block(example), atol=ERRORS[precision], rtol=0)


@on_gpu
@pytest.mark.parametrize("precision", ERRORS)
def test_a_replay_computes_the_answer(
    program: bytes, block: nn.Module, images: Tensor, precision: str
) -> None:
    call = TorchCuda(replace(GPU, precision=precision)).load(program).prepared(images)
    answer = call()
    assert isinstance(answer, Tensor)
    answer.fill_(torch.nan)  # overwrites what the capture computed
    call()
    result = answer.float().cpu()
    torch.testing.assert_close(result, block(images), atol=ERRORS[precision], rtol=0)


@on_gpu
def test_a_replay_outlives_its_program(program: bytes, block: nn.Module, images: Tensor) -> None:
    runtime = TorchCuda(GPU)
    calls = [runtime.load(program).prepared(images.clone()) for _ in range(20)]
    gc.collect()
    torch.cuda.empty_cache()
    for call in calls:
        answer = call()
        assert isinstance(answer, Tensor)
        torch.testing.assert_close(answer.cpu(), block(images), atol=1e-4, rtol=0)


@on_gpu
def test_four_times_the_work_takes_longer_and_times_hold_still() -> None:
    runtime, x = TorchCuda(GPU), torch.randn(8, 256, 56, 56)
    stacks = [nn.Sequential(*(nn.Conv2d(256, 256, 3, padding=1) for _ in range(n))) for n in (1, 4)]
    calls = [runtime.load(runtime.compile(stack, x)).prepared(x) for stack in stacks]
    one, four = time_calls(calls, run_ms=runtime.run_ms, rest=runtime.rest)
    assert 3 < four.median_ms / one.median_ms < 5
    assert max(one.spread, four.spread) < 0.1


@on_gpu
def test_the_clock_of_the_gpu_agrees_with_that_of_the_host() -> None:
    runtime, x = TorchCuda(GPU), torch.randn(8, 256, 56, 56)
    call = runtime.load(runtime.compile(nn.Conv2d(256, 256, 3, padding=1), x)).prepared(x)
    runtime.run_ms(call, 100)
    began = time.perf_counter()
    by_gpu = runtime.run_ms(call, 1000)  # synchronized on both sides
    by_host = (time.perf_counter() - began) * 1e3
    assert by_gpu == pytest.approx(by_host, rel=0.05)


@on_gpu
def test_a_gpu_tells_its_driver_and_clocks() -> None:
    facts = TorchCuda(GPU).facts()
    assert {"gpu", "driver", "sm_clock_mhz", "sm_clock_max_mhz", "tf32"} <= facts.keys()
