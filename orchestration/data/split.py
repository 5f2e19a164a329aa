"""Which part of the data an image belongs to: told by a hash of its key, and by nothing else.

So it is the same on every machine and for any seed, and an image that is added or removed moves no
other. Shapes: N images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestration.config.loading import SpecError

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]
WHOLE = 1 << 64


def hashes_of(keys: Sequence[str]) -> Hashes:
    """(N,): 64 bits of BLAKE2 of each key."""
    found = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(found, dtype=">u8").astype(np.uint64)


def is_test(hashes: Hashes, share: float) -> NDArray[np.bool_]:
    """(N,): whether an image is in the test part, which is `share` of all, about."""
    return hashes < np.uint64(int(share * WHOLE))


def is_architecture(hashes: Hashes, share: float, test_share: float) -> NDArray[np.bool_]:
    """(N,): whether an image is in the architecture part, which is `share` of what is not in the
    test part, about. It lies next to that: where rows stand in the order of their hashes, a part
    is a stretch of them, and reading it is reading no other."""
    first, last = test_share, test_share + (1 - test_share) * share
    return (hashes >= np.uint64(int(first * WHOLE))) & (hashes < np.uint64(int(last * WHOLE)))


def stirred(hashes: Hashes) -> Hashes:
    """Another hash of each: the last steps of SplitMix64 (Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        mixed = hashes + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        stirred: Hashes = mixed ^ (mixed >> np.uint64(31))
    return stirred


def check_classes(labels: Numbers, classes: Sequence[str], part: str) -> None:
    """Refuse a part without an image of some class.

    Args:
        labels: (n,), of the part.
        classes: names of all.
        part: what it is called.

    Raises:
        SpecError: there is one; says which.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() == 0:
        raise SpecError(
            f"data.path: class {classes[int(counts.argmin())]!r} has no image in the {part} part, "
            "to which keys belong by their hash; add images of it, or change data.test_share or "
            "search.architecture_share"
        )
