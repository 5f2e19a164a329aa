"""Checkpoints: tensors and a small JSON that bring a stage back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from orchestration.checkpoint import load, save

CPU = torch.device("cpu")


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A module with BatchNorm and an optimizer with momentum, after a step."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    module(torch.randn(4, 1, 5, 5)).square().sum().backward()
    optimizer.step()
    return module, optimizer


def saved(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> None:
    save(
        folder,
        stage="search",
        counters={"epoch": 3},
        history=[{"epoch": 2, "loss": 0.5}],
        module=module,
        optimizers=[optimizer],
        rank=rank,
    )


def test_a_stage_comes_back_as_it_was(tmp_path: Path) -> None:
    (module, optimizer), (other, other_optimizer) = trained(0), trained(1)
    saved(tmp_path, module, optimizer, rank=0)
    found = load(tmp_path, 0, CPU)
    found.load_into(other, [other_optimizer])
    assert (found.stage, found.counters) == ("search", {"epoch": 3})
    assert found.history == [{"epoch": 2, "loss": 0.5}]
    for name, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
        expected = optimizer.state[mine]["momentum_buffer"]
        assert torch.equal(other_optimizer.state[theirs]["momentum_buffer"], expected)


def test_every_worker_gets_its_own_statistics_back(tmp_path: Path) -> None:
    (module, optimizer), (second, second_optimizer) = trained(0), trained(1)
    saved(tmp_path, module, optimizer, rank=0)
    saved(tmp_path, second, second_optimizer, rank=1)
    found = load(tmp_path, 1, CPU).module
    assert torch.equal(found["1.running_mean"], second.state_dict()["1.running_mean"])
    assert torch.equal(found["0.weight"], module.state_dict()["0.weight"])


def test_a_worker_that_is_new_takes_the_statistics_of_the_first(tmp_path: Path) -> None:
    module, optimizer = trained(0)
    saved(tmp_path, module, optimizer, rank=0)
    found = load(tmp_path, 5, CPU).module
    assert torch.equal(found["1.running_mean"], module.state_dict()["1.running_mean"])


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"format": "checkpoint/9"}')
    with pytest.raises(ValueError, match="not a checkpoint of format 'checkpoint/1'"):
        load(tmp_path, 0, CPU)
