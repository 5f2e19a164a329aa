"""Files of trained networks of every kind, made as a compiler process makes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cluster.hardware import TARGETS
from cluster.runtimes import runtime_of
from nas_core.architecture import Architecture, Model
from nas_core.baselines import for_space
from nas_core.space import proxyless_small
from orchestration.compilers import Compiler
from orchestration.export import ModelFacts

SPACE = proxyless_small(resolution=16)
BASELINE = for_space("mobilenet_v2_0.35", SPACE)


def exported(model: Model, target: str) -> tuple[torch.nn.Module, dict[str, bytes]]:
    """A network with some training behind it, and its files."""
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
    compiler: Any = None  # a process; `export` needs nothing of it
    words = (model, network.state_dict(), TARGETS[target], facts, torch.randn(4, 1, 16, 16))
    return network.eval(), Compiler.export(compiler, *words)


@pytest.mark.slow
def test_a_baseline_answers_on_its_target_as_the_network_does() -> None:
    network, files = exported(BASELINE, "mobile")
    program = runtime_of(TARGETS["mobile"]).load(files["model.pte"])
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(program(image), network(image), atol=1e-4, rtol=1e-3)


def test_a_target_that_is_not_measured_gets_no_program_of_its_own() -> None:
    _, files = exported(Architecture.uniform(SPACE, "mbconv_k3_e3"), "pixel1")
    assert files.keys() == {"model.pt2", "model.json", "example.json"}
