"""Split by key: a hash of an image's key alone decides which part the image belongs to.

The split is therefore the same on every machine and for any seed, and adding or removing an image
moves no other. Sources without keys are split class by class: `split_classes` in `loading.py`.
Shapes: N images.
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
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def is_test(hashes: Hashes, share: float) -> NDArray[np.bool_]:
    """(N,): whether an image is in the test part, which holds about `share` of all images."""
    return hashes < np.uint64(int(share * WHOLE))


def is_architecture(hashes: Hashes, share: float, test_share: float) -> NDArray[np.bool_]:
    """(N,): whether an image is in the architecture part.

    It holds about `share` of the images outside the test part. Its hashes are a contiguous range
    after those of the test part: if rows are sorted by hash, each part is a contiguous range of
    rows and can be read without the others.
    """
    first, last = test_share, test_share + (1 - test_share) * share
    return (hashes >= np.uint64(int(first * WHOLE))) & (hashes < np.uint64(int(last * WHOLE)))


def mixed_hashes(hashes: Hashes) -> Hashes:
    """Second hash of each hash: the output step of SplitMix64 (Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        mixed = hashes + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result: Hashes = mixed ^ (mixed >> np.uint64(31))
    return result


def check_classes(labels: Numbers, classes: Sequence[str], part: str) -> None:
    """Check that a part has images of every class.

    Args:
        labels: (n,), labels of the part.
        classes: names of all classes.
        part: name of the part, for the message.

    Raises:
        SpecError: a class has no image in the part.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() == 0:
        raise SpecError(
            f"data.path: class {classes[int(counts.argmin())]!r} has no image in the {part} part, "
            "to which keys belong by their hash; add images of it, or change data.test_share or "
            "search.architecture_share"
        )
