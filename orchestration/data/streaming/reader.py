"""Read and decode rows of Parquet files: the tasks of a stream.

A task reads the images of one row group and yields them in blocks of a few MiB, in the order of its
plan. The plan holds everything that a task needs, so a task that dies is repeated with the same
result. Shapes: N rows of a plan, P pieces, n rows of a block, C channels, R pixels of a side.
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
from orchestration.data.split import Hashes, Numbers, mixed_hashes
from orchestration.data.transforms import NUMBERS, Recipe, decoded, finished

BLOCK_BYTES = 4 * 1024**2
"""Size of the decoded images of a block, bytes."""
ATTEMPTS, FIRST_WAIT_S = 6, 0.5
"""Attempts to read a row group, and the wait after the first failure. Waits double each time."""
OPEN_FILES = 16

Block = dict[str, NDArray[Any]]
"""Columns: `image` (n, C, R, R), `label`, `hash`, `position` (row of the plan) and `problem`, which
is "key<TAB>reason" if the image cannot be decoded, else empty."""


class ReadError(Exception):
    """A file cannot be read. The message is one line, since Ray adds a traceback to it."""


@dataclass(frozen=True)
class ReadPlan:
    """Rows that the tasks of one stream read, and how they decode them."""

    paths: tuple[str, ...]
    """Paths or s3:// addresses of the files."""
    image_column: str
    key_column: str | None
    channels: int
    resolution: int
    recipe: Recipe
    seed: int
    purpose: str
    epoch: int
    """Seed, purpose, epoch and the key of an image determine its random draws."""
    files: Numbers
    """(P,): index in `paths` of each piece's file."""
    groups: Numbers
    """(P,): number of each piece's row group within its file."""
    starts: Numbers
    """(P + 1,): index in the plan of the first row of each piece, and N."""
    rows: Numbers
    """(N,): number of each row within its row group."""
    hashes: Hashes
    """(N,): hashes of the keys."""
    labels: Numbers
    """(N,)."""

    @property
    def block_rows(self) -> int:
        """Largest number of rows of a block."""
        return max(1, BLOCK_BYTES // (self.channels * self.resolution**2))


def read_piece(plan: ReadPlan, number: int) -> Iterator[Block]:
    """Read, decode and augment the rows of a piece.

    Raises:
        ReadError: the file cannot be read.
    """
    torch.set_num_threads(1)  # tasks run in parallel
    start, stop = int(plan.starts[number]), int(plan.starts[number + 1])
    path, group = plan.paths[plan.files[number]], int(plan.groups[number])
    images = _column(path, group, plan.image_column)
    for first in range(start, stop, plan.block_rows):
        positions = np.arange(first, min(first + plan.block_rows, stop))
        yield _block(plan, path, group, images, positions)


def _block(plan: ReadPlan, path: str, group: int, images: Any, positions: Numbers) -> Block:
    hashes, problems = plan.hashes[positions], [""] * len(positions)
    drawn = draws(hashes, NUMBERS, plan.seed, f"augmentation of {plan.purpose}", plan.epoch)
    shape = (len(positions), plan.channels, plan.resolution, plan.resolution)
    decoded_images = torch.zeros(shape, dtype=torch.uint8)
    for i, (row, numbers) in enumerate(zip(plan.rows[positions], drawn.tolist(), strict=True)):
        data = images[int(row)].as_py()
        try:
            if data is None:
                raise ValueError("there is none")
            decoded_images[i] = decoded(data, plan.channels, plan.resolution, plan.recipe, numbers)
        except ValueError as error:
            problems[i] = f"{_key(plan, path, group, int(row))}\t{error}"
    return {
        "image": finished(decoded_images, plan.recipe, torch.from_numpy(drawn)).numpy(),
        "label": plan.labels[positions],
        "hash": hashes,
        "position": positions,
        "problem": np.array(problems, dtype=object),
    }


def _key(plan: ReadPlan, path: str, group: int, row: int) -> str:
    """Name of an image for error messages: its key, else its location."""
    if plan.key_column is None:
        return f"{path} row group {group} row {row}"
    return str(_column(path, group, plan.key_column)[row].as_py())


def _column(path: str, group: int, name: str) -> Any:
    """A column of a row group. Reading is retried if the file system fails."""
    import pyarrow as pa

    wait_s = FIRST_WAIT_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            table = _open(path).read_row_group(group, columns=[name], use_threads=False)
            column = table.column(name).combine_chunks()
            del table
            pa.default_memory_pool().release_unused()  # the pool keeps the memory of pages
            return column
        except (pa.ArrowInvalid, OSError) as error:
            _open.cache_clear()
            if attempt == ATTEMPTS:
                reason = str(error).splitlines()[0]
                raise ReadError(
                    f"{path} cannot be read, row group {group}: {reason}; see that it is there "
                    "and whole, then run the same command again"
                ) from None
        time.sleep(wait_s)
        wait_s *= 2
    raise AssertionError("the last attempt returns or raises")


@lru_cache(OPEN_FILES)
def _open(path: str) -> Any:
    """Open a Parquet file. Checksums of pages are verified if the file has them.

    `pre_buffer` is off: reading one column takes one request either way, and an open file would
    keep the last row group that was read in memory, 16 MB each.
    """
    import pyarrow.parquet as pq

    from cluster.files import open_file

    return pq.ParquetFile(open_file(path), page_checksum_verification=True, pre_buffer=False)


def plan_arrays(
    pieces: Sequence[tuple[int, int, Numbers]],
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """`files`, `groups`, `starts` and `rows` of a plan, from tuples (file, row group, rows)."""
    files = np.array([file for file, _, _ in pieces], dtype=np.int64)
    groups = np.array([group for _, group, _ in pieces], dtype=np.int64)
    starts = np.cumsum([0, *(len(rows) for _, _, rows in pieces)], dtype=np.int64)
    rows = np.concatenate([rows for _, _, rows in pieces]) if pieces else np.zeros(0, np.int64)
    return files, groups, starts, rows


STEP = 0x9E3779B97F4A7C15
"""Increment between consecutive states of SplitMix64."""


def draws(hashes: Hashes, count: int, seed: int, purpose: str, epoch: int) -> NDArray[np.float64]:
    """Uniform random numbers in [0, 1), (N, count), from the hash of each image's key."""
    base = np.uint64(counted_seed(seed, purpose, epoch))
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(STEP)
        states = mixed_hashes(hashes ^ base)[:, None] + steps[None, :]
    return (mixed_hashes(states) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
