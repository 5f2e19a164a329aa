"""Reading and decoding rows of Parquet files: what the tasks of a stream do.

A task reads the images of one row group and hands them on in blocks of some MiB, in the order of
its plan. Everything that it needs stands in the plan, so a task that dies is done again with the
same result. Shapes: N rows of a plan, P pieces, n rows of a block, C channels, R pixels of a side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas_core.randomness import counted_seed
from orchestration.data.split import Hashes, Numbers, stirred
from orchestration.data.transforms import NUMBERS, Recipe, decoded, finished

BLOCK_BYTES = 4 * 1024**2
"""Of decoded images that are handed on together."""
ATTEMPTS, FIRST_WAIT_S = 6, 0.5
"""At a row group whose file cannot be read; each wait is twice the one before."""
OPEN_FILES = 16

Block = dict[str, NDArray[Any]]
"""Columns: `image` (n, C, R, R), `label`, `hash`, `place` in the plan, and `problem`, empty where
there is none: key and reason, with a tabulator between them."""


class ReadError(Exception):
    """A file cannot be read. One line, since Ray adds others to it."""


@dataclass(frozen=True)
class ReadPlan:
    """What the tasks of one stream read, and what they make of it."""

    places: tuple[str, ...]
    """Of the files."""
    image_column: str
    key_column: str | None
    channels: int
    resolution: int
    recipe: Recipe
    seed: int
    purpose: str
    epoch: int
    """Draws are counted by these three and the key."""
    files: Numbers
    """(P,)."""
    groups: Numbers
    """(P,): numbers of row groups in their files."""
    starts: Numbers
    """(P + 1,): place in the plan of the first row of each piece."""
    rows: Numbers
    """(N,): numbers of rows in their row groups."""
    hashes: Hashes
    """(N,)."""
    labels: Numbers
    """(N,)."""

    @property
    def block_rows(self) -> int:
        """n, at most."""
        return max(1, BLOCK_BYTES // (self.channels * self.resolution**2))


def read_piece(plan: ReadPlan, number: int) -> Iterator[Block]:
    """The rows of a piece, decoded and augmented.

    Raises:
        ReadError: the file cannot be read.
    """
    torch.set_num_threads(1)  # tasks run side by side
    start, stop = int(plan.starts[number]), int(plan.starts[number + 1])
    place, group = plan.places[plan.files[number]], int(plan.groups[number])
    images = _column(place, group, plan.image_column)
    for first in range(start, stop, plan.block_rows):
        places = np.arange(first, min(first + plan.block_rows, stop))
        yield _block(plan, place, group, images, places)


def _block(plan: ReadPlan, place: str, group: int, images: Any, places: Numbers) -> Block:
    hashes, problems = plan.hashes[places], [""] * len(places)
    drawn = draws(hashes, NUMBERS, plan.seed, f"augmentation of {plan.purpose}", plan.epoch)
    shape = (len(places), plan.channels, plan.resolution, plan.resolution)
    found = torch.zeros(shape, dtype=torch.uint8)
    for i, (row, numbers) in enumerate(zip(plan.rows[places], drawn.tolist(), strict=True)):
        data = images[int(row)].as_py()
        try:
            if data is None:
                raise ValueError("there is none")
            found[i] = decoded(data, plan.channels, plan.resolution, plan.recipe, numbers)
        except ValueError as error:
            problems[i] = f"{_key(plan, place, group, int(row))}\t{error}"
    return {
        "image": finished(found, plan.recipe, torch.from_numpy(drawn)).numpy(),
        "label": plan.labels[places],
        "hash": hashes,
        "place": places,
        "problem": np.array(problems, dtype=object),
    }


def _key(plan: ReadPlan, place: str, group: int, row: int) -> str:
    """Of an image, for people."""
    if plan.key_column is None:
        return f"{place} row group {group} row {row}"
    return str(_column(place, group, plan.key_column)[row].as_py())


def _column(place: str, group: int, name: str) -> Any:
    """A column of a row group; tried again where a file system fails."""
    import pyarrow as pa

    wait_s = FIRST_WAIT_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            table = _open(place).read_row_group(group, columns=[name], use_threads=False)
            column = table.column(name).combine_chunks()
            del table
            pa.default_memory_pool().release_unused()  # it keeps what pages were read into
            return column
        except (pa.ArrowInvalid, OSError) as error:
            _open.cache_clear()
            if attempt == ATTEMPTS:
                reason = str(error).splitlines()[0]
                raise ReadError(
                    f"{place} cannot be read, row group {group}: {reason}; see that it is there "
                    "and whole, then run the same command again"
                ) from None
        time.sleep(wait_s)
        wait_s *= 2
    raise AssertionError("the last attempt returns or raises")


@lru_cache(OPEN_FILES)
def _open(place: str) -> Any:
    """A Parquet file, its end read; pages are checked where they say what they should be.

    Nothing is buffered ahead: that is one request for one column all the same, and an open file
    would keep the last row group that was read, 16 MB each.
    """
    import pyarrow.parquet as pq

    from cluster.files import open_file

    return pq.ParquetFile(open_file(place), page_checksum_verification=True, pre_buffer=False)


def plan_arrays(
    pieces: Sequence[tuple[int, int, Numbers]],
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Of pieces (file, row group, rows in it): files, groups, starts and rows of a plan."""
    files = np.array([file for file, _, _ in pieces], dtype=np.int64)
    groups = np.array([group for _, group, _ in pieces], dtype=np.int64)
    starts = np.cumsum([0, *(len(rows) for _, _, rows in pieces)], dtype=np.int64)
    rows = np.concatenate([rows for _, _, rows in pieces]) if pieces else np.zeros(0, np.int64)
    return files, groups, starts, rows


STEP = 0x9E3779B97F4A7C15
"""Between the states that follow each other."""


def draws(hashes: Hashes, count: int, seed: int, purpose: str, epoch: int) -> NDArray[np.float64]:
    """(N, K): evenly from 0 to below 1, for each image of its own."""
    base = np.uint64(counted_seed(seed, purpose, epoch))
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(STEP)
        states = stirred(hashes ^ base)[:, None] + steps[None, :]
    return (stirred(states) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
