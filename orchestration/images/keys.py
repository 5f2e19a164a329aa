"""Which part of the data an image belongs to: told by a hash of its key, and by nothing else.

So it is the same on every machine and for any seed, and an image that is added or removed moves no
other. Shapes: N images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
WHOLE = 1 << 64


def hashes_of(keys: Sequence[str]) -> Hashes:
    """(N,): 64 bits of BLAKE2 of each key."""
    found = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(found, dtype=">u8").astype(np.uint64)


def is_test(hashes: Hashes, share: float) -> NDArray[np.bool_]:
    """(N,): whether an image is in the test part, which is `share` of all, about."""
    return hashes < np.uint64(int(share * WHOLE))


def is_architecture(hashes: Hashes, share: float) -> NDArray[np.bool_]:
    """(N,): whether an image that is not in the test part is in the architecture part, which is
    `share` of those, about: the bits that `is_test` has looked at are stirred first."""
    return _stirred(hashes) < np.uint64(int(share * WHOLE))


def _stirred(hashes: Hashes) -> Hashes:
    """Another hash of each: the last steps of SplitMix64 (Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        mixed = hashes + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        stirred: Hashes = mixed ^ (mixed >> np.uint64(31))
    return stirred
