"""A stream of decoded images: Ray Data runs the tasks of a plan and hands on their blocks in order.

Tasks take no share of the cores that Ray counts: the workers of a case have those, and a stream
that waited for cores which its own readers hold would wait for ever. How many tasks run at a time
is said instead. They run on the node of who reads: a head that has no cores would be given some
too. What waits to be used lies in Ray's object store, and is bounded there.
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
"""Behind the last block."""
ROOM = 2
"""Blocks that lie ready in the worker itself."""
END_S = 1.0
"""How long a stream that is left is waited for; it ends by itself, and takes a while."""
NODE_LABEL = "ray.io/node-id"
"""What Ray labels every node with."""
LOOK_S = 0.5
"""How often a thread that waits looks whether it is still wanted."""


class StreamError(Exception):
    """Images cannot be read."""


class Pipeline:
    """The blocks of one plan. Reading begins at once, in the background."""

    def __init__(self, plan: ReadPlan, readers: int, ahead_bytes: int) -> None:
        """Start it.

        Args:
            plan: what to read.
            readers: tasks at a time.
            ahead_bytes: of blocks that wait to be used.
        """
        self._queue: queue.Queue[Any] = queue.Queue(ROOM)
        self._is_wanted = True
        self._next_place, self._rows = 0, len(plan.rows)
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
        found = self._queue.get()
        if found is END or isinstance(found, BaseException):
            self.is_finished = True
            if found is END:
                raise StopIteration
            raise StreamError(reason_of(found)) from None
        block: Block = found
        first, count = int(block["place"][0]), len(block["place"])
        assert first == self._next_place, "blocks come in the order of the plan"
        self._next_place += count
        self.is_finished = self._next_place == self._rows
        return block

    def close(self) -> None:
        """End it, read to the end or not."""
        self._is_wanted, self.is_finished = False, True
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join(timeout=END_S)

    def _fill(self, plan: ReadPlan, readers: int, ahead_bytes: int) -> None:
        """Body of the thread."""
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

    def _put(self, what: Any) -> bool:
        """False where nobody wants it any more."""
        while self._is_wanted:
            with suppress(queue.Full):
                self._queue.put(what, timeout=LOOK_S)
                return True
        return False


def ray_blocks(plan: ReadPlan, readers: int, ahead_bytes: int) -> Any:
    """The blocks of a plan, by Ray Data: a generator."""
    import ray
    import ray.data
    from ray.data import ExecutionResources, TaskPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised
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
    """The plan, of which a process keeps no copy: its arrays lie in the object store."""
    import ray

    plan: ReadPlan = ray.get(reference)
    return plan


def reason_of(error: BaseException) -> str:
    """What a reader said of a file, else the last line: Ray puts tracebacks around it."""
    told: list[str] = re.findall(r"ReadError: (.+)", str(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return [type(error).__name__, *lines, *told][-1]
