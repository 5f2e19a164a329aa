"""Stateless randomness: draws depend on seed, purpose and counters only."""

from __future__ import annotations

from itertools import product

import torch

from nas_core.randomness import counted_seed, generator


def draws(seed: int, purpose: str, *counters: int) -> list[float]:
    return torch.rand(8, generator=generator(seed, purpose, *counters)).tolist()


def test_the_same_words_give_the_same_draws() -> None:
    assert draws(0, "active", 3, 1) == draws(0, "active", 3, 1)


def test_another_rank_draws_something_else() -> None:
    assert draws(0, "active", 3, 0) != draws(0, "active", 3, 1)


def test_every_word_counts() -> None:
    words = product((0, 1, 11), ("path", "pairs"), (0, 1, 11), (0, 1, 11))
    seeds = [counted_seed(seed, purpose, *counters) for seed, purpose, *counters in words]
    assert len(set(seeds)) == len(seeds) == 54


def test_counters_do_not_run_into_one_another() -> None:
    assert counted_seed(0, "path", 1, 11) != counted_seed(0, "path", 11, 1)
    assert counted_seed(0, "path", 1, 11) != counted_seed(0, "path", 111)


def test_seeds_are_those_of_every_process_and_machine() -> None:
    # printf 0/path/1/2 | sha256sum, first 16 digits, halved: not Python's salted hash.
    assert counted_seed(0, "path", 1, 2) == 0xB2521DEAD243CC48 >> 1


def test_draws_do_not_disturb_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    draws(0, "path", 1)
    assert torch.equal(torch.rand(2), expected)
