"""The program for the device: checked on every image, rejected if it differs, then timed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cluster.hardware import TARGETS, Target
from cluster.runtimes.base import MeasurementError
from orchestration.latency.network import Measured
from orchestration.programs.compile_workers import Exported
from orchestration.programs.timing_workers import Program
from orchestration.stages import retrain
from orchestration.stages.retrain import checked_program

IMAGES = torch.zeros(4, 1, 8, 8)
ANSWERS = torch.arange(40.0).view(4, 10)


def checked(
    monkeypatch: pytest.MonkeyPatch, said: Tensor, target: Target, program: Program | None
) -> dict[str, Any]:
    monkeypatch.setattr(retrain, "node_of", lambda *_: None)
    monkeypatch.setattr(retrain, "answered", lambda *_: said)
    monkeypatch.setattr(retrain, "measure_program", lambda *_: Measured(0.5, 0.01, 1.1))
    task = SimpleNamespace(job=SimpleNamespace(measure=None))
    context: Any = SimpleNamespace(task=task, target=target, table=None)
    return checked_program(context, Exported({}, program, ANSWERS, IMAGES))


PROGRAM = Program(b"", (1, 1, 8, 8))
CPU, GPU = TARGETS["cpu"], Target(name="gpu", runtime="torch_cuda", precision="fp16")


def test_the_largest_difference_is_told_and_the_program_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = ANSWERS.clone()
    said[3, 7] += 5e-4
    result = checked(monkeypatch, said, CPU, PROGRAM)
    assert result["program_error"] == pytest.approx(5e-4, rel=0.02)
    assert (result["measured_ms"], result["measured_drift"]) == (0.5, 1.1)


@pytest.mark.parametrize("by", [2e-3, float("nan")])
def test_a_program_that_differs_on_one_image_is_refused(
    monkeypatch: pytest.MonkeyPatch, by: float
) -> None:
    said = ANSWERS.clone()
    said[3, 7] += by
    message = r"the program for cpu \(ONNX Runtime\) differs from the network by .*less than 0.001"
    with pytest.raises(MeasurementError, match=message):
        checked(monkeypatch, said, CPU, PROGRAM)


def test_a_program_of_less_precision_may_differ_and_says_by_how_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert checked(monkeypatch, ANSWERS + 0.25, GPU, PROGRAM)["program_error"] == 0.25


def test_without_a_program_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(monkeypatch, ANSWERS + 9, TARGETS["pixel1"], None) == {}
