"""Random numbers of an image that depend on its key, not on who reads it, when, and with what else.

Shapes: N images, K numbers for each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas_core.randomness import counted_seed
from orchestration.data.split import Hashes, stirred

STEP = 0x9E3779B97F4A7C15
"""Between the states that follow each other."""


def draws(hashes: Hashes, count: int, seed: int, purpose: str, epoch: int) -> NDArray[np.float64]:
    """(N, K): evenly from 0 to below 1, for each image of its own."""
    base = np.uint64(counted_seed(seed, purpose, epoch))
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(STEP)
        states = stirred(hashes ^ base)[:, None] + steps[None, :]
    return (stirred(states) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
