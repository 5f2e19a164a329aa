"""ONNX Runtime: a compiled module answers like the module, and can be timed."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import onnx
import psutil
import pytest
import torch
from torch import Tensor, nn

from cluster.hardware import TARGETS
from cluster.runtimes import MeasurementError
from cluster.runtimes.onnxruntime import OnnxRuntime
from cluster.runtimes.timing import time_calls
from nas_core.architecture import Architecture
from nas_core.blocks import Head, Stem
from nas_core.ops import OpShape, build_op
from nas_core.space import proxyless_small
from tests.conftest import REPOSITORY

SPACE = proxyless_small()


@pytest.fixture(scope="module")
def runtime() -> OnnxRuntime:
    return OnnxRuntime(TARGETS["cpu"])


def after_images(module: nn.Module, *shape: int) -> nn.Module:
    """`module` with batch norms that have seen images, in the layout that training uses."""
    module.to(memory_format=torch.channels_last).train()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            module(3 * torch.randn(8, *shape, generator=rng) + 1)
    return module


@pytest.fixture(scope="module")
def block() -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    return after_images(nn.Sequential(convolution, nn.BatchNorm2d(16), nn.ReLU6()), 3, 16, 16)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def program(runtime: OnnxRuntime, block: nn.Module, images: Tensor) -> bytes:
    return runtime.compile(block, images)


def eager(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return module.eval()(images)


def check_answers(runtime: OnnxRuntime, module: nn.Module, images: Tensor) -> None:
    loaded = runtime.load(runtime.compile(module, torch.zeros_like(images)))
    torch.testing.assert_close(loaded(images), eager(module, images), atol=1e-4, rtol=0)


def test_a_compiled_module_answers_like_the_module(
    runtime: OnnxRuntime, program: bytes, block: nn.Module, images: Tensor
) -> None:
    loaded = runtime.load(program)
    other = 2 * torch.randn(1, 3, 16, 16)
    for example in (images, other, other.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(loaded(example), eager(block, example), atol=1e-4, rtol=0)


def test_a_prepared_call_computes_what_the_program_answers(
    runtime: OnnxRuntime, program: bytes, images: Tensor
) -> None:
    loaded = runtime.load(program)
    call = loaded.prepared(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(call(), loaded(images), atol=0, rtol=0)


def test_a_batch_of_the_size_of_the_target_is_one_call(
    runtime: OnnxRuntime, block: nn.Module
) -> None:
    check_answers(runtime, block, torch.randn(4, 3, 16, 16))


@pytest.mark.parametrize(
    "op",
    ["mbconv_k3_e3", "mbconv_k7_e6", "mbconv_k5_e3_se", "mbconv_k3_e3_hswish", "sepconv_k3"],
)
def test_an_op_answers_like_the_op(runtime: OnnxRuntime, op: str) -> None:
    block = after_images(build_op(op, OpShape(8, 8, 1)), 8, 12, 12)
    check_answers(runtime, block, torch.randn(1, 8, 12, 12))


def test_what_stands_around_the_ops_answers_like_it(runtime: OnnxRuntime) -> None:
    image = (SPACE.in_channels, SPACE.resolution, SPACE.resolution)
    check_answers(runtime, after_images(Stem(SPACE), *image), torch.randn(1, *image))
    last = SPACE.sites[-1]
    features = (last.out_channels, last.out_resolution, last.out_resolution)
    check_answers(runtime, after_images(Head(SPACE), *features), torch.randn(1, *features))


def test_a_network_answers_like_the_network(runtime: OnnxRuntime) -> None:
    image = (SPACE.in_channels, SPACE.resolution, SPACE.resolution)
    network = after_images(Architecture.reference(SPACE).build(), *image)
    check_answers(runtime, network, torch.randn(1, *image))


def test_batch_norm_is_folded_into_the_convolution(program: bytes) -> None:
    ops = [node.op_type for node in onnx.load_from_string(program).graph.node]
    assert ops == ["Conv", "Clip"]


def test_answers_stay_when_the_program_runs_again(runtime: OnnxRuntime, program: bytes) -> None:
    loaded = runtime.load(program)
    first = loaded(torch.zeros(1, 3, 16, 16))
    kept = first.clone()
    loaded(torch.ones(1, 3, 16, 16))
    torch.testing.assert_close(first, kept, atol=0, rtol=0)


def test_compiling_leaves_the_module_as_it_was(
    runtime: OnnxRuntime, block: nn.Module, images: Tensor
) -> None:
    block.train()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    strides = [parameter.stride() for parameter in block.parameters()]
    runtime.compile(block, images)
    assert block.training
    assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())
    assert [parameter.stride() for parameter in block.parameters()] == strides


def test_a_prepared_call_outlives_its_program(
    runtime: OnnxRuntime, program: bytes, images: Tensor
) -> None:
    expected = runtime.load(program)(images)
    calls = [runtime.load(bytes(bytearray(program))).prepared(images.clone()) for _ in range(20)]
    gc.collect()
    for call in calls:
        torch.testing.assert_close(call(), expected, atol=0, rtol=0)


def test_the_overhead_of_a_call_is_measurable(runtime: OnnxRuntime, images: Tensor) -> None:
    nothing = runtime.load(runtime.compile(nn.Identity(), images))
    torch.testing.assert_close(nothing(images), images)
    (timing,) = time_calls([nothing.prepared(images)], run_ms=runtime.run_ms)
    assert 0 < timing.median_ms < 0.1


def test_a_wider_convolution_takes_longer(
    runtime: OnnxRuntime, program: bytes, images: Tensor
) -> None:
    wide = runtime.compile(nn.Conv2d(3, 256, 3, padding=1), images)
    timings = time_calls([runtime.load(data).prepared(images) for data in (program, wide)])
    assert timings[1].median_ms > 3 * timings[0].median_ms


@pytest.mark.parametrize("threads", [1, 3])
def test_programs_run_on_as_many_threads_as_asked(program: bytes, threads: int) -> None:
    OnnxRuntime(TARGETS["cpu"]).load(program)  # what the library starts once is not counted
    gc.collect()
    process = psutil.Process()
    before = process.num_threads()
    loaded = OnnxRuntime(replace(TARGETS["cpu"], threads=threads)).load(program)
    assert process.num_threads() - before == threads - 1  # the caller is one of them
    del loaded


def test_bytes_that_are_no_program_are_refused(runtime: OnnxRuntime) -> None:
    for data in (b"", b"no program" * 100):
        with pytest.raises(MeasurementError, match="cannot load the program"):
            runtime.load(data)


def test_the_library_is_quiet_when_all_is_well(
    runtime: OnnxRuntime,
    block: nn.Module,
    images: Tensor,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        program = runtime.compile(block, images)
        OnnxRuntime(replace(TARGETS["cpu"], threads=2)).load(program).prepared(images)()
        runtime.load(program)(images)
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.messages) == ("", "", [])


def test_the_library_reports_to_nobody(program: bytes, tmp_path: Path) -> None:
    """What it has to report is kept in the user's cache until it is sent."""
    (tmp_path / "model.onnx").write_bytes(program)
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys, pathlib; from cluster.hardware import TARGETS;"
        "from cluster.runtimes.onnxruntime import OnnxRuntime;"
        "OnnxRuntime(TARGETS['cpu']).load(pathlib.Path(sys.argv[1]).read_bytes())"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "model.onnx")]
    # Without the names under which the library takes itself to be under test.
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    subprocess.run(words, check=True, cwd=REPOSITORY, env=env)
    assert list(home.rglob("*")) == []


def test_a_missing_library_is_named_with_the_way_to_get_it(
    runtime: OnnxRuntime, program: bytes, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(MeasurementError, match=r"pip install 'onnxruntime>=1\.22,<2'"):
        runtime.version()
    with pytest.raises(MeasurementError, match="onnxruntime is not installed"):
        runtime.load(program)
    with pytest.raises(MeasurementError, match="pip install 'onnx>="):
        runtime.compile(nn.ReLU(), images)


def test_the_version_is_that_of_the_library(runtime: OnnxRuntime) -> None:
    assert runtime.version() == metadata.version("onnxruntime")
