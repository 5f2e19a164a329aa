"""ExecuTorch: its thread pool, and messages about invalid programs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from cluster.hardware import TARGETS
from cluster.runtimes.base import MeasurementError
from cluster.runtimes.executorch import ExecuTorch

TARGET = TARGETS["mobile"].on_host()


@pytest.fixture(scope="module")
def program() -> bytes:
    return ExecuTorch(TARGET).compile(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))


@pytest.mark.slow
def test_programs_run_on_as_many_threads_as_asked(program: bytes) -> None:
    from executorch.extension.pybindings import _C

    for threads in (2, 1):
        ExecuTorch(replace(TARGET, threads=threads)).load(program)
        assert _C._threadpool_get_thread_count() == threads


def test_what_the_library_says_of_a_bad_program_is_not_held_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(MeasurementError, match="cannot load the program"):
        ExecuTorch(TARGET).load(b"no program" * 100)
    assert "Program identifier" in capfd.readouterr().err


@pytest.mark.slow
def test_the_library_is_quiet_when_its_threads_change(
    program: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    ExecuTorch(replace(TARGET, threads=2)).load(program)
    ExecuTorch(TARGET).load(program)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
