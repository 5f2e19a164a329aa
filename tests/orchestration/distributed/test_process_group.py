"""Gradient averaging between two workers over gloo, and signals between workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from cluster.head import free_port
from orchestration.distributed.process_group import DistributedProcessGroup, StepSignals, Stopped
from tests.conftest import REPOSITORY

WORKER = """
import json, sys
import torch
import torch.distributed as dist
from torch import nn
from nas_core.workers import DivergenceError
from orchestration.distributed.process_group import Buckets, DistributedProcessGroup

rank, port = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
group = DistributedProcessGroup(rank, 2, torch.device("cpu"))
torch.manual_seed(0)
used = nn.Sequential(*[nn.Linear(50, 50) for _ in range(4)])
unused, silent = nn.Linear(50, 50), nn.Linear(3, 3)
images = torch.randn(8, 50)
part = images[:5] if rank == 0 else images[5:]
facts = torch.tensor([1.0 + rank, 10.0])
with group.averaging([*used.parameters(), *silent.parameters()], facts):
    (used(part).square().mean(1).sum() / 8).backward()
loss = used(images).square().mean(1).mean()
whole = torch.autograd.grad(loss, list(used.parameters()))
worst = max(float((p.grad - g).abs().max()) for p, g in zip(used.parameters(), whole))

sizes = []
send = dist.all_reduce
def counted(flat, **named):
    sizes.append(flat.numel())
    return send(flat, **named)
dist.all_reduce = counted
for p in used.parameters():
    p.grad = None
buckets = Buckets(list(used.parameters()), torch.zeros(2), size=4 * 2600)
with buckets.filling():
    used(part).sum().backward()
    early = len(sizes)
buckets.collect()
try:
    group.agree("colours", "red" if rank == 0 else "blue")
    said = ""
except DivergenceError as error:
    said = str(error)
looks = []
def look():
    looks.append(rank)
    return {"seen by": rank, "names": [f"case-{i}" for i in range(1000)]}
answers = [group.broadcast_from_first(look), group.broadcast_from_first(lambda: None)]
print(json.dumps({
    "looks": looks, "answers": answers,
    "facts": facts.tolist(), "worst": worst, "sent": group.sent, "sizes": sizes, "early": early,
    "unused": unused.weight.grad is None, "silent": float(silent.weight.grad.abs().sum()),
    "gathered": group.gather(f"worker {rank}"), "said": said,
}))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def outputs() -> list[dict[str, Any]]:
    """Output of two workers."""
    port = str(free_port())
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, str(rank), port],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    said = [worker.communicate(timeout=120)[0] for worker in workers]
    return [json.loads(text) for text in said]


@pytest.mark.slow
def test_gradients_are_those_of_the_whole_batch_on_both(outputs: list[dict[str, Any]]) -> None:
    for output in outputs:
        assert output["worst"] < 1e-6


@pytest.mark.slow
def test_facts_travel_along_and_are_summed(outputs: list[dict[str, Any]]) -> None:
    assert [output["facts"] for output in outputs] == [[3.0, 20.0]] * 2


@pytest.mark.slow
def test_what_is_not_on_the_path_does_not_travel(outputs: list[dict[str, Any]]) -> None:
    on_path = 4 * (50 * 50 + 50) + (3 * 3 + 3)
    for output in outputs:
        assert output["sent"] == on_path + 2  # the facts
        assert output["unused"]
        assert output["silent"] == 0.0  # declared to be on the path, but without a gradient


@pytest.mark.slow
def test_buckets_leave_while_backward_still_runs(outputs: list[dict[str, Any]]) -> None:
    for output in outputs:
        assert output["sizes"] == [2600 + 2, 5050, 2550]  # full with 2,600 values; the facts lead
        assert output["early"] == 3


@pytest.mark.slow
def test_workers_read_each_others_short_texts_and_name_a_difference(
    outputs: list[dict[str, Any]],
) -> None:
    for output in outputs:
        assert output["gathered"] == ["worker 0", "worker 1"]
        assert "workers disagree on colours (worker 0: red, worker 1: blue)" in output["said"]


@pytest.mark.slow
def test_the_first_worker_looks_and_all_get_its_answer_of_any_length(
    outputs: list[dict[str, Any]],
) -> None:
    answer = {"seen by": 0, "names": [f"case-{i}" for i in range(1000)]}
    assert [output["answers"] for output in outputs] == [[answer, None]] * 2
    assert [output["looks"] for output in outputs] == [[0], []]


def test_one_worker_gets_what_several_would() -> None:
    group = DistributedProcessGroup(0, 1, torch.device("cpu"))
    assert group.broadcast_from_first(lambda: (1, 2.5, "x")) == [1, 2.5, "x"]


def test_the_wish_of_one_is_the_wish_of_all() -> None:
    assert StepSignals.of([0.0, 1.0, 0.0]) == StepSignals(save=True)
    assert StepSignals(stop=True, finish=True).to_list() == [1.0, 0.0, 1.0, 0.0]


def test_work_without_a_checkpoint_is_left_at_the_step_after_the_driver_has_said_so() -> None:
    group = DistributedProcessGroup(0, 1, torch.device("cpu"))
    with group.stoppable():
        group.apply_signals(group.signal_values())
        group.watchdog.is_stopping = True
        with pytest.raises(Stopped):
            group.apply_signals(group.signal_values())
    group.apply_signals([1.0, 0.0, 0.0, 0.0])  # outside the block it is only stored
    assert group.signals == StepSignals(stop=True)
    assert group.signal_values() == [0.0, 0.0, 0.0, 0.0]
