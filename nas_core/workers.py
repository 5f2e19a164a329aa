"""What the workers of a data-parallel run do together; alone it costs nothing.

`orchestration/distributed/process_group.py` has the group of Ray Train workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor, nn


class DivergenceError(RuntimeError):
    """Workers that must hold equal values do not."""

    def __init__(self, what: str, values: list[str]) -> None:
        super().__init__(what, values)
        self.what, self.values = what, values

    def __str__(self) -> str:
        shown = ", ".join(f"worker {rank}: {value}" for rank, value in enumerate(self.values))
        return f"workers disagree on {self.what} ({shown}); the run was stopped"


class ProcessGroup(Protocol):
    """The workers of one run."""

    rank: int
    size: int

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, by its sum over all workers; shapes equal on all."""
        ...

    def averaging(
        self, parameters: Sequence[nn.Parameter], facts: Tensor
    ) -> AbstractContextManager[None]:
        """Inside, a backward pass runs; at the end gradients and `facts` are sums over workers.

        Args:
            parameters: all that get a gradient in the pass, in the order of the forward pass, equal
                on all workers. Their losses are weighted with the workers' shares of the batch.
            facts: a few numbers that travel with them, float32 on the device, replaced in place.
        """
        ...

    def signal_values(self) -> list[float]:
        """What this worker wants all to do after the step; as many numbers on all workers."""
        ...

    def apply_signals(self, signals: list[float]) -> None:
        """The sums of all workers' signals: called after every step, on all workers alike."""
        ...

    def agree(self, what: str, value: str) -> None:
        """Raise DivergenceError on all workers unless all hold the same `value`."""
        ...


class SingleProcess:
    """A group of one."""

    rank = 0
    size = 1

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to add."""

    def averaging(
        self,
        parameters: Sequence[nn.Parameter],  # noqa: ARG002
        facts: Tensor,  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Nothing to average."""
        return nullcontext()

    def signal_values(self) -> list[float]:
        """None."""
        return []

    def apply_signals(self, signals: list[float]) -> None:
        """Nobody speaks."""

    def agree(self, what: str, value: str) -> None:
        """Nobody to disagree with."""
