"""Exports of trained networks of every kind, by a compile worker in this process."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

from cluster.hardware import TARGETS
from cluster.runtimes import runtime_of
from cluster.runtimes.base import MeasurementError
from cluster.runtimes.executorch import ExecuTorch
from nas_core.architecture import Architecture, Model
from nas_core.baselines.registry import for_space
from nas_core.space import proxyless_small
from orchestration.programs import compile_workers
from orchestration.programs.compile_workers import PROGRAMS_A_SWEEP, CompileWorker, Exported
from orchestration.programs.export import ModelFacts

SPACE = proxyless_small(resolution=16)
HERE = {**TARGETS, "mobile": TARGETS["mobile"].on_host()}
BASELINE = for_space("mobilenet_v2_0.35", SPACE)


@contextmanager
def compiling() -> Iterator[CompileWorker]:
    """A compile worker in this process; garbage collection and threads are restored afterwards."""
    threads = torch.get_num_threads()
    try:
        yield CompileWorker()
    finally:
        gc.enable()
        torch.set_num_threads(threads)


def exported(model: Model, target: str) -> tuple[torch.nn.Module, Exported]:
    """A network with trained BatchNorm statistics, and its export."""
    torch.manual_seed(0)
    network = model.build(dropout=0.2)
    network(torch.randn(8, 1, 16, 16))
    facts = ModelFacts(
        classes=tuple("0123456789"),
        input_shape=(1, 16, 16),
        mean=(0.3,),
        std=(0.4,),
        architecture=model.to_dict(),
    )
    words = (model, network.state_dict(), HERE[target], facts, torch.randn(4, 1, 16, 16))
    with compiling() as compiler:
        return network.eval(), compiler.export(*words)


class Graph:
    """Reference cycle, as exporters leave it."""

    def __init__(self) -> None:
        self.itself = self


def test_a_compiler_gives_back_what_exporters_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    left = []

    def compiled(*_words: object) -> bytes:
        left.append(weakref.ref(Graph()))
        return b"a program"

    monkeypatch.setattr(compile_workers, "_compiled", compiled)
    ops = SPACE.sites[0].ops[:2]
    choices = product(ops, repeat=3)
    rest = Architecture.uniform(SPACE, "mbconv_k3_e3").ops[3:]
    networks = [Architecture(SPACE, (*some, *rest)) for some in choices]
    assert len(networks) == PROGRAMS_A_SWEEP
    with compiling() as compiler:
        compiler.lower(SPACE, HERE["cpu"], networks[:-1])
        assert all(ref() is not None for ref in left)
        compiler.lower(SPACE, HERE["cpu"], networks)  # earlier programs are cached
    assert len(left) == PROGRAMS_A_SWEEP
    assert all(ref() is None for ref in left)


@pytest.mark.long
@pytest.mark.slow
def test_a_baseline_answers_on_its_target_as_the_network_does() -> None:
    network, made = exported(BASELINE, "mobile")
    program = runtime_of(HERE["mobile"]).load(made.files["model.pte"])
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(program(image), network(image), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_target_that_is_not_measured_gets_no_program_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compile_workers, "PORTABLE", ())
    _, made = exported(Architecture.uniform(SPACE, "mbconv_k3_e3"), "pixel1")
    assert made.files.keys() == {"model.pt2", "model.json", "example.json"}
    assert made.program is None


@pytest.mark.slow
def test_a_network_for_one_runtime_goes_on_devices_of_the_other_too() -> None:
    network, made = exported(Architecture.uniform(SPACE, "mbconv_k3_e3"), "cpu")
    image = torch.randn(1, 1, 16, 16)
    assert {"model.onnx", "model.pte"} <= made.files.keys()
    program = runtime_of(HERE["mobile"]).load(made.files["model.pte"])
    with torch.no_grad():
        torch.testing.assert_close(program(image), network(image), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_runtime_that_is_not_installed_costs_the_network_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refusing(_runtime: Any) -> str:
        raise MeasurementError("executorch is not installed")

    monkeypatch.setattr(ExecuTorch, "version", refusing)
    _, made = exported(Architecture.uniform(SPACE, "mbconv_k3_e3"), "cpu")
    assert "model.onnx" in made.files
    assert "model.pte" not in made.files
    assert "no model.pte beside the network: executorch is not installed" in caplog.text


@pytest.mark.slow
def test_a_batch_larger_than_the_example_is_filled_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_workers, "PORTABLE", ())
    HERE["cpu"] = replace(TARGETS["cpu"], batch_size=6)
    network, made = exported(Architecture.uniform(SPACE, "mbconv_k3_e3"), "cpu")
    assert made.program is not None
    assert made.program.input_shape == (6, 1, 16, 16)
    assert made.images[:2].equal(made.images[4:])
    answers = runtime_of(HERE["cpu"]).load(made.files["model.onnx"])(made.images)
    torch.testing.assert_close(answers, made.answers, atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(network(made.images), made.answers)
