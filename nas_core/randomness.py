"""Counted randomness: every draw comes from (seed, purpose, counters); nothing is carried.

A resumed run draws what an uninterrupted one would have drawn, and workers that use the same words
and numbers draw the same without talking to each other.
"""

from __future__ import annotations

import hashlib

import torch


def counted_seed(seed: int, purpose: str, *counters: int) -> int:
    """A number below 2**63 that differs for every (seed, purpose, counters)."""
    words = f"{seed}/{purpose}/{'/'.join(map(str, counters))}"
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A fresh generator on the CPU for one purpose, e.g. `generator(0, "path", epoch, step)`."""
    return torch.Generator().manual_seed(counted_seed(seed, purpose, *counters))
