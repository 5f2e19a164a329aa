"""Collective operations across workers. No-ops when there is one worker.

`orchestration/distributed/process_group.py` implements them for the workers of Ray Train.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor, nn


class DivergenceError(RuntimeError):
    """Workers disagree on a value that must be equal on all of them."""

    def __init__(self, what: str, values: list[str]) -> None:
        super().__init__(what, values)
        self.what, self.values = what, values

    def __str__(self) -> str:
        shown = ", ".join(f"worker {rank}: {value}" for rank, value in enumerate(self.values))
        return f"workers disagree on {self.what} ({shown}); the run was stopped"


class ProcessGroup(Protocol):
    """The workers of one run and their collective operations."""

    rank: int
    size: int

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, by its sum over all workers; shapes are equal on all."""
        ...

    def averaging(
        self, parameters: Sequence[nn.Parameter], facts: Tensor
    ) -> AbstractContextManager[None]:
        """Context for a backward pass; on exit, gradients and `facts` are sums over all workers.

        Args:
            parameters: all parameters that get a gradient in the pass, in the order of the forward
                pass, equal on all workers. Losses are weighted with the workers' shares of the
                batch.
            facts: a few numbers to sum together with the gradients, float32 on the device, replaced
                in place.
        """
        ...

    def signal_values(self) -> list[float]:
        """Signals of this worker for the end of a step; as many values on all workers."""
        ...

    def apply_signals(self, signals: list[float]) -> None:
        """Handle the sums of all workers' signals; called after every step on all workers."""
        ...

    def agree(self, what: str, value: str) -> None:
        """Raise DivergenceError on all workers unless `value` is equal on all."""
        ...


class SingleProcess:
    """Group of a single worker; all operations are no-ops."""

    rank = 0
    size = 1

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing: the sum over one worker is the tensor itself."""

    def averaging(
        self,
        parameters: Sequence[nn.Parameter],  # noqa: ARG002
        facts: Tensor,  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Return an empty context."""
        return nullcontext()

    def signal_values(self) -> list[float]:
        """Return no signals."""
        return []

    def apply_signals(self, signals: list[float]) -> None:
        """Do nothing."""

    def agree(self, what: str, value: str) -> None:
        """Do nothing."""
