"""Process group of the Ray Train workers of a case, their device, and their reports."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TypeVar

import ray.train
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nas_core.workers import DivergenceError
from orchestration.distributed.control_actor import ControlClient, NoControlClient
from orchestration.distributed.watchdog import Watchdog

Answer = TypeVar("Answer")

VALUE_BYTES = 64
"""Longest text that workers exchange, bytes."""
BUCKET_BYTES = 4 * 2**20
"""Size of a gradient bucket, which is sent in one message, bytes."""


@dataclass
class StepSignals:
    """Requests of a worker after a step. They are summed over workers, so all act alike."""

    stop: bool = False
    save: bool = False
    finish: bool = False
    """End the stage, done or not."""
    drain: bool = False
    """The node of a worker is about to be preempted: save often."""

    def to_list(self) -> list[float]:
        """Signals as numbers, which can be summed over workers."""
        return [float(signal) for signal in astuple(self)]

    @classmethod
    def of(cls, sums: Sequence[float]) -> StepSignals:
        """Signals from sums over workers: each is set if any worker has set it."""
        return cls(*(value > 0 for value in sums))


class Stopped(Exception):  # noqa: N818  # a request, not a failure
    """The driver has requested a stop, and everything that must be saved is saved."""


class DistributedProcessGroup:
    """The workers of one run, over torch.distributed (gloo or NCCL)."""

    def __init__(
        self,
        rank: int,
        size: int,
        device: torch.device,
        control: ControlClient | None = None,
        hang_timeout_s: float = 600.0,
    ) -> None:
        self.rank, self.size = rank, size
        self.watchdog = Watchdog(control or NoControlClient(), self.rank, hang_timeout_s)
        self.local_signals: Callable[[], StepSignals] = StepSignals
        """Function that returns the current signals of this worker; set by the stage."""
        self.signals = StepSignals()
        """Signals of all workers after the last step."""
        self.waited_s = 0.0
        """Time in which this worker has only waited for communication, seconds."""
        self.sent = 0
        """Number of gradient values that were averaged in the last step."""
        self._device, self._raises = device, False

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor in place by its sum over all workers. Sends one message per dtype."""
        if self.size == 1:
            return
        with self._waiting():
            for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
                _sum_together([tensor for tensor in tensors if tensor.dtype == kind])

    @contextmanager
    def averaging(self, parameters: Sequence[nn.Parameter], facts: Tensor) -> Iterator[None]:
        """Sum the gradients of a backward pass over workers.

        The block runs backward. Buckets are sent as soon as they are complete, so communication
        overlaps with the computation.

        Args:
            parameters: in the order of the forward pass.
            facts: further values to sum; replaced in place.
        """
        if self.size == 1:
            yield
            return
        buckets = Buckets(parameters, facts)
        with buckets.filling():
            yield
        with self._waiting():
            buckets.collect()
        self.sent = buckets.values

    def signal_values(self) -> list[float]:
        """Signals of this worker, as numbers."""
        return self.local_signals().to_list()

    def apply_signals(self, signals: list[float]) -> None:
        """Finish a step: store the sums of the signals of all workers."""
        self.signals = StepSignals.of(signals)
        self.watchdog.step_done()
        if self._raises and self.signals.stop:
            raise Stopped

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Raise `Stopped` on all workers after the step in which a stop is requested.

        For work without checkpoints, which is saved only when it is complete.
        """
        self.local_signals = lambda: StepSignals(stop=self.watchdog.is_stopping)
        self._raises = True
        try:
            yield
        finally:
            self.local_signals, self._raises = StepSignals, False

    def agree(self, what: str, value: str) -> None:
        """Raise DivergenceError on all workers unless `value` is the same on all of them."""
        values = self.gather(value)
        if len(set(values)) > 1:
            raise DivergenceError(what, values)

    def gather(self, value: str) -> list[str]:
        """Values of all workers, by rank. A value is a text of at most VALUE_BYTES."""
        if self.size == 1:
            return [value]
        mine = value.encode().ljust(VALUE_BYTES, b"\0")
        sent = torch.frombuffer(bytearray(mine), dtype=torch.uint8).to(self._device)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        with self._waiting():
            dist.all_gather(received, sent)
        return [bytes(text.tolist()).rstrip(b"\0").decode() for text in received]

    def broadcast_from_first(self, look: Callable[[], Answer]) -> Answer:
        """Evaluate `look` on the first worker only and return its answer on all workers.

        Use it for decisions that depend on storage: all workers then act on the same state, even if
        one of them has started to write. All workers must call it. `look` may take long.

        Args:
            look: returns plain values for JSON, of any size. Tuples come back as lists.
        """
        text = json.dumps(look()) if self.rank == 0 else ""
        if self.size == 1:
            return json.loads(text)  # type: ignore[no-any-return]
        content = bytearray(text.encode())
        length = torch.tensor([len(content)], device=self._device)
        with self.watchdog.waiting():
            dist.broadcast(length, 0)
            sent = torch.zeros(int(length), dtype=torch.uint8, device=self._device)
            if self.rank == 0:
                sent.copy_(torch.frombuffer(content, dtype=torch.uint8))
            dist.broadcast(sent, 0)
        return json.loads(sent.cpu().numpy().tobytes())  # type: ignore[no-any-return]

    def barrier(self) -> None:
        """Wait until all workers have arrived, however long the first worker takes."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        began = time.perf_counter()
        with self.watchdog.waiting():
            yield
        self.waited_s += time.perf_counter() - began


class RayProcessGroup(DistributedProcessGroup):
    """Process group of the workers that Ray Train started for this run."""

    def __init__(
        self,
        device: torch.device,
        control: ControlClient | None = None,
        hang_timeout_s: float = 600.0,
    ) -> None:
        context = ray.train.get_context()
        rank, size = context.get_world_rank(), context.get_world_size()
        super().__init__(rank, size, device, control, hang_timeout_s)


class Buckets:
    """Buckets for the gradients of one backward pass, which are summed over workers."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], facts: Tensor, size: int = BUCKET_BYTES
    ) -> None:
        """Assign parameters to buckets in reverse order, as backward computes their gradients.

        Args:
            parameters: in the order of the forward pass.
            facts: further values to sum, sent with the first bucket; replaced in place.
            size: bytes of a bucket; the last one may be smaller.
        """
        self._facts = facts
        self._buckets = _in_buckets(list(reversed(parameters)), size)
        self._missing = [len(bucket) for bucket in self._buckets]
        self._messages: list[tuple[dist.Work, Tensor]] = []
        self.values = 0
        """Number of values that this worker has sent."""

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Send buckets while backward runs in the block. They are sent in order, once complete."""
        handles = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda _p, i=number: self._count(i)
            )
            for number, bucket in enumerate(self._buckets)
            for parameter in bucket
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count(self, number: int) -> None:
        self._missing[number] -= 1
        while len(self._messages) < len(self._buckets) and self._missing[len(self._messages)] == 0:
            self._send(len(self._messages))

    def _send(self, number: int) -> None:
        flat = torch.cat([values.flatten() for values in self._content(number)])
        self.values += flat.numel()
        work = dist.all_reduce(flat, async_op=True)
        assert work is not None, "an asynchronous message has a handle"
        self._messages.append((work, flat))

    def _content(self, number: int) -> list[Tensor]:
        """Tensors of a bucket, in order."""
        grads = [_grad_of(parameter) for parameter in self._buckets[number]]
        return [*grads, self._facts] if number == 0 else grads

    def collect(self) -> None:
        """Wait for all buckets and copy the sums into the gradients."""
        for number in range(len(self._messages), len(self._buckets)):
            self._send(number)  # a parameter in it got no gradient
        for number, (work, flat) in enumerate(self._messages):
            work.wait()
            _spread(flat, self._content(number))


def _in_buckets(parameters: Sequence[nn.Parameter], size: int) -> list[list[nn.Parameter]]:
    """Split parameters, in order, into buckets that are full when they reach `size` bytes."""
    buckets: list[list[nn.Parameter]] = [[]]
    filled = 0
    for parameter in parameters:
        if filled >= size:
            buckets.append([])
            filled = 0
        buckets[-1].append(parameter)
        filled += parameter.numel() * parameter.element_size()
    return buckets


def _grad_of(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _sum_together(tensors: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    _spread(flat, tensors)


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the values of one message back into the tensors."""
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def worker_device() -> torch.device:
    """GPU that Ray assigned to this worker, else the CPU."""
    from ray.train.torch import get_device

    device: torch.device = get_device()
    return device
