"""Stateless randomness: every draw is a function of (seed, purpose, counters).

A resumed run draws what an uninterrupted run would have drawn. Workers that use the same purpose
and counters draw the same numbers without communication.
"""

from __future__ import annotations

import hashlib

import torch


def counted_seed(seed: int, purpose: str, *counters: int) -> int:
    """A seed below 2**63, derived from a hash of (seed, purpose, counters)."""
    key = f"{seed}/{purpose}/{'/'.join(map(str, counters))}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A new CPU generator for one purpose, e.g. `generator(0, "path", epoch, step)`."""
    return torch.Generator().manual_seed(counted_seed(seed, purpose, *counters))
