"""ONNX Runtime: compiled modules, threads, and telemetry."""

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
from cluster.runtimes.base import MeasurementError
from cluster.runtimes.onnxruntime import OnnxRuntime
from nas_core.space import proxyless_small
from tests.conftest import REPOSITORY
from tests.support.small_block import small_block, small_image

SPACE = proxyless_small()


@pytest.fixture(scope="module")
def runtime() -> OnnxRuntime:
    return OnnxRuntime(TARGETS["cpu"])


@pytest.fixture(scope="module")
def block() -> nn.Module:
    return small_block()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return small_image()


@pytest.fixture(scope="module")
def program(runtime: OnnxRuntime, block: nn.Module, images: Tensor) -> bytes:
    return runtime.compile(block, images)


@pytest.mark.slow
def test_a_prepared_call_computes_what_the_program_answers(
    runtime: OnnxRuntime, program: bytes, images: Tensor
) -> None:
    loaded = runtime.load(program)
    call = loaded.prepared(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(call(), loaded(images), atol=0, rtol=0)


@pytest.mark.slow
def test_batch_norm_is_folded_into_the_convolution(program: bytes) -> None:
    ops = [node.op_type for node in onnx.load_from_string(program).graph.node]
    assert ops == ["Conv", "Clip"]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.slow
def test_programs_run_on_as_many_threads_as_asked(program: bytes, threads: int) -> None:
    OnnxRuntime(TARGETS["cpu"]).load(
        program
    )  # threads that the library starts once are not counted
    gc.collect()
    process = psutil.Process()
    before = process.num_threads()
    loaded = OnnxRuntime(replace(TARGETS["cpu"], threads=threads)).load(program)
    assert process.num_threads() - before == threads - 1  # the caller is one of them
    del loaded


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_library_reports_to_nobody(program: bytes, tmp_path: Path) -> None:
    """The library would store its reports in the user's cache until they are sent."""
    (tmp_path / "model.onnx").write_bytes(program)
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys, pathlib; from cluster.hardware import TARGETS;"
        "from cluster.runtimes.onnxruntime import OnnxRuntime;"
        "OnnxRuntime(TARGETS['cpu']).load(pathlib.Path(sys.argv[1]).read_bytes())"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "model.onnx")]
    # Removes the variables by which the library detects that it is being tested.
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    subprocess.run(words, check=True, cwd=REPOSITORY, env=env)
    assert list(home.rglob("*")) == []


def test_each_library_that_compiling_needs_is_named_where_it_is_missing(
    runtime: OnnxRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "onnxscript":
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(MeasurementError, match=r"onnxscript is not installed; .*'onnxruntime'"):
        runtime.compile(nn.ReLU(), torch.zeros(1, 3, 8, 8))
