"""Process groups: no-ops with one worker; divergence errors name the values of all workers."""

from __future__ import annotations

import pickle

import torch

from nas_core.workers import DivergenceError, SingleProcess


def test_alone_the_sum_is_what_it_was() -> None:
    values = torch.tensor([1.0, 2.0])
    SingleProcess().sum([values])
    assert values.tolist() == [1.0, 2.0]


def test_a_divergence_names_every_worker_and_its_value() -> None:
    text = str(DivergenceError("the architecture parameters", ["ab", "cd"]))
    assert text == (
        "workers disagree on the architecture parameters (worker 0: ab, worker 1: cd); "
        "the run was stopped"
    )


def test_a_divergence_can_leave_its_process() -> None:
    error = DivergenceError("x", ["a", "b"])
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, DivergenceError)
    assert str(again) == str(error)
