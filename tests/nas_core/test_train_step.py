"""A training step: micro-batches, communication between workers, values that are not finite."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.precision import no_scaler, precision_of
from nas_core.progress import EpochReport, Progress
from nas_core.search import search_epochs, start_search
from nas_core.search_settings import SearchSettings
from nas_core.search_state import SearchState
from nas_core.settings import RetrainSettings
from nas_core.train import start_training, train_epochs
from nas_core.train_step import LossError, StepTarget, Trainer
from nas_core.workers import ProcessGroup, SingleProcess
from tests.nas_core.test_search import data, goal
from tests.support.thread_workers import Member, on_all
from tests.support.tiers import slow
from tests.support.tiny import K3, K5, Images, two_sites

CPU = torch.device("cpu")
SETTINGS = RetrainSettings(label_smoothing=0.0, weight_decay=0.0, max_bad_steps=2)
IMAGES = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3
MODEL = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


class Bench:
    """A BatchNorm followed by a linear layer, and its trainer."""

    def __init__(self, group: ProcessGroup | None = None, **settings: Any) -> None:
        self.model = copy.deepcopy(MODEL)  # workers are threads: they share a random generator
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, 0.9)
        chosen = replace(SETTINGS, **settings)
        self.trainer = Trainer.of(self.optimizer, no_scaler(), chosen, group or SingleProcess())
        self.progress = Progress()
        self.trained = StepTarget(
            lambda batch: self.model(batch.images),
            list(self.model.parameters()),
            list(self.model.buffers()),
            "path 0-1",
        )

    def step(self, batch: Batch) -> None:
        self.trainer.step(batch, self.trained, self.progress, lr=0.1)

    def values(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.model.state_dict())

    def grads(self) -> list[Tensor]:
        return [p.grad.clone() for p in self.model.parameters() if p.grad is not None]


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_gradients_of_unequal_parts_are_those_of_the_mean_over_all_images() -> None:
    def work(member: Member) -> tuple[list[Tensor], float]:
        bench = Bench(member)
        bench.model[1] = nn.Identity()  # BatchNorm normalizes each part separately
        bench.trained = replace(bench.trained, parameters=list(bench.model.parameters()))
        part = slice(0, 5) if member.rank == 0 else slice(5, 8)
        bench.step(Batch(IMAGES[part], LABELS[part], 8, part.start))
        return bench.grads(), bench.progress.tally.evaluation(member).loss

    whole = Bench()
    whole.model[1] = nn.Identity()
    loss = F.cross_entropy(whole.model(IMAGES), LABELS)
    expected = torch.autograd.grad(loss, list(whole.model.parameters()))
    mean_loss = float(loss.detach())
    for grads, seen in on_all(2, work):
        torch.testing.assert_close(grads, list(expected))
        assert seen == pytest.approx(mean_loss, rel=1e-6)


def test_a_worker_with_two_parts_does_what_two_workers_with_one_each_do() -> None:
    whole = Bench(micro_batch_size=4)

    def work(member: Member) -> dict[str, Tensor]:
        bench, part = Bench(member), slice(4 * member.rank, 4 * member.rank + 4)
        for _ in range(3):
            bench.step(Batch(IMAGES[part], LABELS[part], 8, part.start))
        return {name: value for name, value in bench.values().items() if "running" not in name}

    for _ in range(3):
        whole.step(Batch(IMAGES, LABELS, 8))
    alone = whole.values()
    for values in on_all(2, work):
        for name, value in values.items():
            if "num_batches" not in name:
                torch.testing.assert_close(value, alone[name], rtol=1e-5, atol=1e-6)


def test_parts_are_at_most_as_large_as_asked_and_know_where_they_begin() -> None:
    parts = Batch(IMAGES[:7], LABELS[:7], 16, first=8).parts(3)
    assert [(len(part.labels), part.first, part.total) for part in parts] == [
        (3, 8, 16),
        (3, 11, 16),
        (1, 14, 16),
    ]
    assert torch.equal(torch.cat([part.images for part in parts]), IMAGES[:7])


def test_a_step_that_is_not_finite_moves_nothing_and_is_counted() -> None:
    bench = Bench()
    bench.step(Batch(IMAGES, LABELS, 8))
    before, momentum = bench.values(), copy.deepcopy(bench.optimizer.state_dict()["state"])
    seen = bench.progress.tally.sums.clone()
    bench.step(Batch(IMAGES * float("nan"), LABELS, 8))
    assert_same(before, bench.values())
    for key, values in bench.optimizer.state_dict()["state"].items():
        assert torch.equal(values["momentum_buffer"], momentum[key]["momentum_buffer"])
    assert (bench.progress.bad_steps, bench.progress.skipped, bench.progress.step) == (1, 1, 2)
    assert torch.equal(bench.progress.tally.sums, seen)
    bench.step(Batch(IMAGES, LABELS, 8))
    assert (bench.progress.bad_steps, bench.progress.skipped) == (0, 1)


def test_a_gradient_that_is_not_finite_moves_nothing_even_where_the_loss_is() -> None:
    bench = Bench()
    before = bench.values()
    bench.model[0].weight.register_hook(lambda grad: grad * float("inf"))
    bench.step(Batch(IMAGES, LABELS, 8))
    assert bench.progress.skipped == 1
    assert_same(before, bench.values())


def test_all_workers_skip_what_one_of_them_cannot_use() -> None:
    def work(member: Member) -> tuple[int, bool]:
        bench, part = Bench(member), slice(4 * member.rank, 4 * member.rank + 4)
        before = bench.values()
        images = IMAGES[part] * (float("nan") if member.rank == 1 else 1.0)
        bench.step(Batch(images, LABELS[part], 8, part.start))
        same = all(torch.equal(v, bench.values()[name]) for name, v in before.items())
        return bench.progress.skipped, same

    assert on_all(2, work) == [(1, True), (1, True)]


def test_too_many_bad_steps_in_a_row_end_with_what_explains_them() -> None:
    bench, bad = Bench(), Batch(IMAGES * float("nan"), LABELS, 8)
    for batch in (bad, bad, Batch(IMAGES, LABELS, 8), bad, bad):
        bench.step(batch)
    with pytest.raises(LossError) as raised:
        bench.step(bad)
    for words in ("in 3 steps in a row", "step 6 of epoch 1", "loss nan", "on path 0-1"):
        assert words in str(raised.value)


def test_a_share_of_the_learning_rate_is_taken() -> None:
    bench = Bench()
    bench.progress.lr_share = 0.5
    bench.step(Batch(IMAGES, LABELS, 8))
    assert bench.optimizer.param_groups[0]["lr"] == 0.05


def test_signals_of_all_workers_reach_every_worker_after_the_step() -> None:
    sums: dict[int, list[float]] = {}

    def work(member: Member) -> None:
        member.signal_values = lambda: [1.0, float(member.rank)]  # type: ignore[method-assign]
        member.apply_signals = lambda signals: sums.update({member.rank: signals})  # type: ignore[method-assign]
        bench, part = Bench(member), slice(4 * member.rank, 4 * member.rank + 4)
        bench.step(Batch(IMAGES[part], LABELS[part], 8, part.start))

    on_all(2, work)
    assert sums == {0: [2.0, 1.0], 1: [2.0, 1.0]}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_keeps_weights_in_float32(precision: Any) -> None:
    settings = RetrainSettings(epochs=4, batch_size=8, lr=0.1, precision=precision)
    state = start_training(Architecture(two_sites(), (K3, K5)), settings, 0, CPU)
    reports = list(train_epochs(state, Images(24, 8), settings, 0, SingleProcess()))
    assert reports[-1].loss < reports[0].loss
    assert {p.dtype for p in state.network.parameters()} == {torch.float32}
    assert state.scaler.is_enabled() == (precision == "float16")


def test_on_a_cpu_training_is_in_float32_unless_asked() -> None:
    assert precision_of(SearchSettings(), CPU).dtype == torch.float32
    assert precision_of(SearchSettings(precision="bfloat16"), CPU).dtype == torch.bfloat16


@pytest.mark.parametrize("strategy", ["two_path", *slow("full_path", "darts", "reinforce")])
def test_searches_with_one_and_two_workers_agree_where_parts_are_the_same(strategy: Any) -> None:
    settings = SearchSettings(
        strategy=strategy,
        batch_size=8,
        warmup_epochs=1,
        epochs=2,
        alpha_every=2,
        micro_batch_size=4,
        samples=2,
        bn_images=16,
    )

    def work(member: ProcessGroup) -> tuple[SearchState, list[EpochReport]]:
        state = start_search(two_sites(), settings, 0, CPU)
        parts = data(member.rank, member.size)
        return state, list(search_epochs(state, parts, goal(), settings, 0, member))

    alone, expected = work(SingleProcess())
    for state, reports in on_all(2, work):
        assert [r.loss for r in reports] == pytest.approx([r.loss for r in expected], rel=1e-4)
        for alpha, other in zip(state.supernet.alphas(), alone.supernet.alphas(), strict=True):
            torch.testing.assert_close(alpha, other, rtol=1e-3, atol=1e-4)
