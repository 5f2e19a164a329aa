"""Checkpoints restore a stage exactly, and damaged ones are detected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cluster.storage import Storage, StorageError
from nas_core.progress import Progress
from orchestration.stages import checkpoint
from orchestration.stages.checkpoint import CheckpointError, Checkpoints, Snapshot, snapshot

CPU = torch.device("cpu")


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A module with BatchNorm and an optimizer with momentum, after a step."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    module(torch.randn(4, 1, 5, 5)).square().sum().backward()
    optimizer.step()
    return module, optimizer


def taken(seed: int = 0, rank: int = 0, size: int = 1, epoch: int = 3) -> Snapshot:
    module, optimizer = trained(seed)
    progress = Progress(epoch=epoch, step=7, skipped=2)
    progress.tally.sums += 1.0 + rank
    return snapshot(
        progress,
        module,
        [optimizer],
        counters={"alpha_steps": 4},
        history=[{"epoch": 2, "loss": 0.5}],
        rank=rank,
        size=size,
    )


def written(folder: Path, *snapshots: Snapshot, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(Storage(str(folder)), keep)
    for item in snapshots:
        checkpoints.save(item)
    checkpoints.finish()
    return checkpoints


def silent(text: str) -> None:
    raise AssertionError(f"nothing was damaged, and yet: {text}")


def test_a_stage_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, taken(0))
    name = checkpoints.newest_good(silent)
    assert name == "00003-00000007"
    result = checkpoints.load(name, 0, 1, CPU)
    (module, optimizer), (other, other_optimizer) = trained(0), trained(1)
    progress = Progress()
    result.load_into(progress, other, [other_optimizer])
    assert (progress.epoch, progress.step, progress.skipped) == (3, 7, 2)
    assert progress.tally.sums.tolist() == [1.0] * 4
    assert result.counters["alpha_steps"] == 4
    assert result.history == [{"epoch": 2, "loss": 0.5}]
    for key, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)
    for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
        expected = optimizer.state[mine]["momentum_buffer"]
        assert torch.equal(other_optimizer.state[theirs]["momentum_buffer"], expected)


def test_a_snapshot_does_not_change_with_what_it_was_taken_of() -> None:
    module, optimizer = trained(0)
    before = {name: value.clone() for name, value in module.named_parameters()}
    one = snapshot(Progress(), module, [optimizer], counters={}, history=[])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    for name, value in one.tensors["shared.pt"]["parameters"].items():
        assert torch.equal(value, before[name])


def test_every_worker_gets_its_own_statistics_back(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, taken(0, 0, 2), taken(1, 1, 2))
    name = checkpoints.newest_good(silent)
    assert name is not None
    result = checkpoints.load(name, 1, 2, CPU)
    second, first = trained(1)[0].state_dict(), trained(0)[0].state_dict()
    assert torch.equal(result.module["1.running_mean"], second["1.running_mean"])
    assert torch.equal(result.module["0.weight"], first["0.weight"])
    assert result.sums.tolist() == [2.0] * 4


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_with_another_number_of_workers_nothing_that_was_counted_is_lost(
    tmp_path: Path, size: int
) -> None:
    checkpoints = written(tmp_path, *(taken(rank, rank, 3) for rank in range(3)))
    name = checkpoints.newest_good(silent)
    assert name is not None
    result = [checkpoints.load(name, rank, size, CPU) for rank in range(size)]
    assert torch.stack([item.sums for item in result]).sum(0).tolist() == [6.0] * 4
    fourth = checkpoints.load(name, 4, 5, CPU).module
    assert torch.equal(fourth["1.running_mean"], trained(1)[0].state_dict()["1.running_mean"])


def test_a_checkpoint_counts_when_all_its_workers_have_written(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, taken(rank=0, size=2))
    assert checkpoints.newest_good(silent) is None
    written(tmp_path, taken(rank=1, size=2))
    assert checkpoints.newest_good(silent) is not None


def test_as_many_as_asked_are_kept(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, *(taken(epoch=n) for n in range(5)), keep=3)
    assert checkpoints.complete() == [f"0000{n}-00000007" for n in (4, 3, 2)]


def truncate(place: Path) -> None:
    place.write_bytes(place.read_bytes()[:-20])


def flip(place: Path) -> None:
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)


@pytest.mark.parametrize("file", ["shared.pt", "buffers-0.pt", "state.json"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [(truncate, "bytes, "), (flip, "another checksum"), (Path.unlink, "is missing")],
)
def test_of_a_damaged_checkpoint_the_one_before_is_taken_and_that_is_said(
    tmp_path: Path, damage: Any, words: str, file: str
) -> None:
    checkpoints, said = written(tmp_path, taken(epoch=1), taken(epoch=2)), []
    damage(tmp_path / "00002-00000007" / file)
    assert checkpoints.newest_good(said.append) == "00001-00000007"
    (text,) = said
    assert words in text
    assert file in text
    assert text.endswith("taking the one before")


def test_a_damaged_list_of_files_is_found_too(tmp_path: Path) -> None:
    checkpoints, said = written(tmp_path, taken(epoch=1), taken(0, 0, 2), taken(1, 1, 2)), []
    (tmp_path / "00003-00000007" / "rank-1.json").write_text("{")
    assert checkpoints.newest_good(said.append) == "00001-00000007"
    assert "is not JSON" in said[0]


class Refusing(Storage):
    """Storage whose first writes fail."""

    refusals = 0

    def write_bytes(self, key: str, data: bytes) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise StorageError(f"cannot write {key}: no space left on device")
        super().write_bytes(key, data)


def test_a_write_that_fails_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(checkpoint.time, "sleep", pauses.append)
    storage = Refusing(str(tmp_path))
    checkpoints = Checkpoints(storage)
    storage.refusals = 3
    checkpoints.save(taken())
    checkpoints.finish()
    assert pauses == [1.0, 2.0, 4.0]
    assert checkpoints.newest_good(silent) is not None


def test_a_write_that_goes_on_failing_ends_with_the_last_good_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.time, "sleep", lambda _s: None)
    storage = Refusing(str(tmp_path))
    checkpoints = Checkpoints(storage)
    checkpoints.save(taken(epoch=1))
    checkpoints.finish()
    storage.refusals = 100
    checkpoints.save(taken(epoch=2))
    with pytest.raises(CheckpointError) as raised:
        checkpoints.save(taken(epoch=3))
    for words in ("in 5 attempts", "no space left on device", "00001-00000007; make room"):
        assert words in str(raised.value)
    assert checkpoints.newest_good(silent) == "00001-00000007"


def test_another_format_is_refused(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, taken())
    (tmp_path / "00003-00000007" / "state.json").write_text('{"format": "checkpoint/9"}')
    with pytest.raises(ValueError, match="is not a checkpoint of format 'checkpoint/2'"):
        checkpoints.load("00003-00000007", 0, 1, CPU)
