"""Stream of decoded images: Ray Data runs the tasks of a plan and returns their blocks in order.

Tasks request no CPUs from Ray: the workers of a case hold them, so a stream that waited for CPUs
would deadlock. The number of concurrent tasks is limited directly instead. Tasks are pinned to the
node of the worker that reads; otherwise Ray would also place some on a head node without CPUs.
Prefetched blocks lie in Ray's object store, which bounds their size.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from orchestration.data.streaming.reader import BLOCK_BYTES, Block, ReadPlan, read_piece

END = None
"""Marker in the queue after the last block."""
ROOM = 2
"""Number of blocks that are prefetched into the worker itself."""
END_S = 1.0
"""Time to wait for a closed stream to end, seconds. It ends by itself, but may take longer."""
NODE_LABEL = "ray.io/node-id"
"""Label that Ray sets on every node."""
LOOK_S = 0.5
"""Interval at which a blocked thread checks whether the stream was closed, seconds."""


class StreamError(Exception):
    """Images cannot be read."""


class Pipeline:
    """Blocks of one plan, read in a background thread."""

    def __init__(self, plan: ReadPlan, readers: int, ahead_bytes: int) -> None:
        """Start to read.

        Args:
            plan: rows to read.
            readers: number of tasks that run at a time.
            ahead_bytes: limit of prefetched blocks, bytes.
        """
        self._queue: queue.Queue[Any] = queue.Queue(ROOM)
        self._is_wanted = True
        self._next_position, self._rows = 0, len(plan.rows)
        self.is_finished = self._rows == 0
        self._thread = threading.Thread(
            target=self._fill, args=(plan, readers, ahead_bytes), daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Block]:
        return self

    def __next__(self) -> Block:
        if self.is_finished:
            raise StopIteration
        item = self._queue.get()
        if item is END or isinstance(item, BaseException):
            self.is_finished = True
            if item is END:
                raise StopIteration
            raise StreamError(reason_of(item)) from None
        block: Block = item
        first, count = int(block["position"][0]), len(block["position"])
        assert first == self._next_position, "blocks come in the order of the plan"
        self._next_position += count
        self.is_finished = self._next_position == self._rows
        return block

    def close(self) -> None:
        """Stop reading, even before the end."""
        self._is_wanted, self.is_finished = False, True
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join(timeout=END_S)

    def _fill(self, plan: ReadPlan, readers: int, ahead_bytes: int) -> None:
        """Body of the background thread."""
        try:
            blocks = ray_blocks(plan, readers, ahead_bytes)
            try:
                for block in blocks:
                    if not self._put(block):
                        return
            finally:
                blocks.close()
            self._put(END)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        """Put an item into the queue. False if the stream was closed."""
        while self._is_wanted:
            with suppress(queue.Full):
                self._queue.put(item, timeout=LOOK_S)
                return True
        return False


def ray_blocks(plan: ReadPlan, readers: int, ahead_bytes: int) -> Any:
    """Generator of the blocks of a plan, read by Ray Data."""
    import ray
    import ray.data
    from ray.data import ExecutionResources, TaskPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # failures are raised
    pieces = len(plan.files)
    if pieces == 0:
        return
    held = ray.put(plan)

    def read(batch: dict[str, Any]) -> Iterator[Block]:
        yield from read_piece(held_plan(held), int(batch["item"][0]))

    numbers = ray.data.from_items(list(range(pieces)), override_num_blocks=pieces)
    context = numbers.context
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=ahead_bytes
    )
    here = {NODE_LABEL: ray.get_runtime_context().get_node_id()}
    pool = TaskPoolStrategy(size=readers)
    blocks = numbers.map_batches(read, batch_size=1, num_cpus=0, compute=pool, label_selector=here)
    yield from blocks.iter_batches(batch_size=None, prefetch_batches=1)


def held_plan(reference: Any) -> ReadPlan:
    """The plan. Its arrays stay in the object store, so that processes hold no copy."""
    import ray

    plan: ReadPlan = ray.get(reference)
    return plan


def reason_of(error: BaseException) -> str:
    """Message of a ReadError inside Ray's traceback, else the last line of an error."""
    reasons: list[str] = re.findall(r"ReadError: (.+)", str(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return [type(error).__name__, *lines, *reasons][-1]
