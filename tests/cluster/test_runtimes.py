"""Contract of all runtimes for this machine's processor."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from importlib import metadata

import pytest
import torch
from torch import Tensor, nn

from cluster.hardware import TARGETS, Target
from cluster.runtimes import runtime_of
from cluster.runtimes.base import MeasurementError, Runtime
from cluster.runtimes.timing import time_calls
from nas_core.architecture import Architecture
from nas_core.network import Head, Stem
from nas_core.ops import build_op
from nas_core.shapes import OpShape
from tests.support.small_block import small_block, small_image, small_space

SPACE = small_space()
HERE: dict[str, Target] = {
    "executorch": TARGETS["mobile"].on_host(),
    "onnxruntime": TARGETS["cpu"],
    "torch": Target(name="server", runtime="torch"),
}


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(
    scope="module",
    params=[
        "torch",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("executorch", "onnxruntime")),
    ],
)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return runtime_of(HERE[request.param])


def after_images(module: nn.Module, *shape: int) -> nn.Module:
    """`module` with BatchNorm statistics of some images, in the memory format of training."""
    module.to(memory_format=torch.channels_last).train()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            module(3 * torch.randn(8, *shape, generator=rng) + 1)
    return module


@pytest.fixture(scope="module")
def block() -> nn.Module:
    return after_images(small_block(), 3, 16, 16)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return small_image()


@pytest.fixture(scope="module")
def program(runtime: Runtime, block: nn.Module, images: Tensor) -> bytes:
    return runtime.compile(block, images)


def eager(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = module.eval()(images)
    return answer


CLOSE = 1e-4


def difference(runtime: Runtime, module: nn.Module, images: Tensor) -> float:
    """Largest difference between the outputs of a compiled module and of the module."""
    answers = runtime.load(runtime.compile(module, torch.zeros_like(images)))(images)
    expected = eager(module, images)
    assert answers.shape == expected.shape
    return float((answers - expected).abs().max())


def test_the_runtime_is_found_by_the_name_that_the_target_gives_it(runtime: Runtime) -> None:
    assert HERE[runtime.name].runtime == runtime.name


def test_a_compiled_module_answers_like_the_module(
    runtime: Runtime, program: bytes, block: nn.Module, images: Tensor
) -> None:
    loaded = runtime.load(program)
    other = 2 * torch.randn(1, 3, 16, 16)
    for example in (images, other, other.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(loaded(example), eager(block, example), atol=1e-4, rtol=0)


def test_a_batch_of_the_size_of_the_target_is_one_call(runtime: Runtime, block: nn.Module) -> None:
    assert difference(runtime, block, torch.randn(4, 3, 16, 16)) < CLOSE


@pytest.mark.parametrize(
    "op",
    [
        "mbconv_k5_e3_se",
        *(
            pytest.param(op, marks=pytest.mark.slow)
            for op in ("mbconv_k3_e3", "mbconv_k7_e6", "mbconv_k3_e3_hswish", "sepconv_k3")
        ),
    ],
)
def test_an_op_answers_like_the_op(runtime: Runtime, op: str) -> None:
    block = after_images(build_op(op, OpShape(8, 8, 1)), 8, 12, 12)
    assert difference(runtime, block, torch.randn(1, 8, 12, 12)) < CLOSE


def test_what_stands_around_the_ops_answers_like_it(runtime: Runtime) -> None:
    image = (SPACE.in_channels, SPACE.resolution, SPACE.resolution)
    assert difference(runtime, after_images(Stem(SPACE), *image), torch.randn(1, *image)) < CLOSE
    last = SPACE.sites[-1]
    features = (last.out_channels, last.out_resolution, last.out_resolution)
    assert (
        difference(runtime, after_images(Head(SPACE), *features), torch.randn(1, *features)) < CLOSE
    )


@pytest.mark.slow
def test_a_network_answers_like_the_network(runtime: Runtime) -> None:
    image = (SPACE.in_channels, SPACE.resolution, SPACE.resolution)
    network = after_images(Architecture.reference(SPACE).build(), *image)
    assert difference(runtime, network, torch.randn(1, *image)) < CLOSE


def test_answers_stay_when_the_program_runs_again(runtime: Runtime, program: bytes) -> None:
    loaded = runtime.load(program)
    first = loaded(torch.zeros(1, 3, 16, 16))
    kept = first.clone()
    loaded(torch.ones(1, 3, 16, 16))
    torch.testing.assert_close(first, kept, atol=0, rtol=0)


def test_compiling_leaves_the_module_as_it_was(
    runtime: Runtime, block: nn.Module, images: Tensor
) -> None:
    block.train()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    strides = [parameter.stride() for parameter in block.parameters()]
    runtime.compile(block, images)
    assert block.training
    assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())
    assert [parameter.stride() for parameter in block.parameters()] == strides


@pytest.mark.slow
def test_a_prepared_call_outlives_its_program(
    runtime: Runtime, program: bytes, images: Tensor
) -> None:
    def prepared() -> Callable[[], object]:
        return runtime.load(bytes(bytearray(program))).prepared(images.clone())

    expected = prepared()()  # None if the output stays in the library's memory
    calls = [prepared() for _ in range(10)]
    gc.collect()
    # Using freed memory would crash the process rather than raise an error.
    for call in calls:
        torch.testing.assert_close(call(), expected, atol=0, rtol=0)


@pytest.mark.slow
@pytest.mark.timed
def test_the_overhead_of_a_call_is_measurable(runtime: Runtime, images: Tensor) -> None:
    nothing = runtime.load(runtime.compile(nn.Identity(), images))
    torch.testing.assert_close(nothing(images), images)
    (timing,) = time_calls([nothing.prepared(images)], run_ms=runtime.run_ms)
    assert 0 < timing.median_ms < 0.1


@pytest.mark.slow
@pytest.mark.timed
def test_a_wider_convolution_takes_longer(runtime: Runtime, program: bytes, images: Tensor) -> None:
    wide = runtime.compile(nn.Conv2d(3, 1024, 3, padding=1), images)
    timings = time_calls([runtime.load(data).prepared(images) for data in (program, wide)])
    assert timings[1].median_ms > 3 * timings[0].median_ms


def test_bytes_that_are_no_program_are_refused(runtime: Runtime) -> None:
    for data in (b"", b"no program" * 100):
        with pytest.raises(MeasurementError, match="cannot load the program"):
            runtime.load(data)


def test_the_library_is_quiet_when_all_is_well(
    runtime: Runtime,
    block: nn.Module,
    images: Tensor,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        runtime.load(runtime.compile(block, images)).prepared(images)()
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.messages) == ("", "", [])


def test_a_missing_library_is_named_with_the_way_to_get_it(
    runtime: Runtime, program: bytes, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(MeasurementError, match=rf"{runtime.name} is not installed.*pip install"):
        runtime.version()
    if runtime.name == "torch":
        return  # without torch no program can be compiled
    with pytest.raises(MeasurementError, match=f"install the extra '{runtime.name}'"):
        runtime.load(program)
    with pytest.raises(MeasurementError, match=f"install the extra '{runtime.name}'"):
        runtime.compile(nn.ReLU(), images)


def test_the_version_is_that_of_the_library(runtime: Runtime) -> None:
    assert metadata.version(runtime.name) == runtime.version()
